"""Smoothed Energy Guidance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from hguide.guidance.perturbed import PerturbedContrast

__all__ = ["SEG"]


@dataclass(frozen=True)
class SEG(PerturbedContrast):
    """Smoothed Energy Guidance: l' = l + s (l - l_blurred), the contrast with attention of blurred queries.

    In the chosen layers of the perturbed stream the queries are blurred over the token map of the step by a Gaussian;
    infinite sigma gives each token the mean query, sigma 0 is no change.

    Args:
        strength: s; a number, multiplied by the schedule, or a schedule or one number per step used as it is.
        layers: the changed layers, from 0; none leaves the choice to the generator (VAR: the middle third).
        sigma: of the Gaussian, in tokens, >= 0; `inf` by default.
        schedule: unit schedule of a number; constant by default.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: a strength that is not finite, layers that are negative or named twice, or a negative sigma.

    Source: arXiv 2408.00760; the linear rule is *stated* (diffusers, `SmoothedEnergyGuidance`). *Reconstructed*: the
    blur is cut at the border of the map and its weights are normalised; layers and strength for next-scale models.
    """

    sigma: float | str = math.inf

    kind: ClassVar[str] = "seg"

    def __post_init__(self) -> None:
        # The text form has no number for infinity, but the word.
        if self.sigma == "inf":
            object.__setattr__(self, "sigma", math.inf)
        super().__post_init__()

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = super().problems()
        if isinstance(self.sigma, str) or not self.sigma >= 0.0:
            found.append(f"sigma is a number >= 0 or inf, got {self.sigma!r}")
        return found

    def options(self) -> tuple[tuple[str, float], ...]:
        """sigma."""
        return (("sigma", float(self.sigma)),)

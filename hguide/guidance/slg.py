"""Skip-Layer Guidance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hguide.guidance.perturbed import PerturbedContrast

__all__ = ["SLG"]


@dataclass(frozen=True)
class SLG(PerturbedContrast):
    """Skip-Layer Guidance: l' = l + s (l - l_skipped), the contrast with a pass that leaves layers out.

    Args:
        strength: s; a number, multiplied by the schedule, or a schedule or one number per step used as it is.
        layers: the layers left out, from 0; none leaves the choice to the generator (VAR: the middle third).
        schedule: unit schedule of a number; constant by default.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: a strength that is not finite, or layers that are negative or named twice.

    Source: the linear rule is *stated* (diffusers, `SkipLayerGuidance`). *Reconstructed*: layers and strength for
    next-scale models; the stream keeps a cache of its own.
    """

    kind: ClassVar[str] = "slg"

"""Perturbed-Attention Guidance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hguide.guidance.perturbed import PerturbedContrast

__all__ = ["PAG"]


@dataclass(frozen=True)
class PAG(PerturbedContrast):
    """Perturbed-Attention Guidance: l' = l + s (l - l_identity), the contrast with attention of each token to itself.

    In the chosen layers of the perturbed stream the attention map is the identity: a token's output is its own value.
    `cfg + pag` adds both increments to the same base, u + w (c - u) + s (c - c_pag), and asks for three streams.

    Args:
        strength: s; a number, multiplied by the schedule, or a schedule or one number per step used as it is.
        layers: the changed layers, from 0; none leaves the choice to the generator (VAR: the middle third).
        schedule: unit schedule of a number; constant by default.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: a strength that is not finite, or layers that are negative or named twice.

    Source: arXiv 2403.17377; the linear rule is *stated* (diffusers, `PerturbedAttentionGuidance`). *Reconstructed*:
    the perturbed stream of a model with a cache keeps a cache of its own; layers and strength for next-scale models.
    """

    kind: ClassVar[str] = "pag"

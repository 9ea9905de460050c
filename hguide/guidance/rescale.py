"""Classifier-free guidance rescaled to the spread of the given prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.guidance.reduced_contrast import ReducedContrast

__all__ = ["Rescale"]


@dataclass(frozen=True)
class Rescale(ReducedContrast):
    """CFG rescale: l' = (phi std(c) / std(l) + 1 - phi) l with l = c + t (c - u), against over-saturation.

    At phi = 0 it is CFG; at phi = 1 the guided logits have the spread of the given ones: per token this is a
    temperature for each token. The rescaling is part of the method because it needs the logits before CFG: `rescale`
    stands in place of `cfg`, not after it.

    Args:
        strength: see `NullContrast`.
        w: see `NullContrast`.
        schedule: see `NullContrast`.
        gauge: of the standard deviations over a map; those per token do not depend on it.
        reduction: "token", or "map" as for images of diffusion.
        phi: in [0, 1].
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: phi out of range; what `ReducedContrast` raises.

    Source: arXiv 2305.08891; formula *stated* in diffusers' guiders (`guidance_rescale`), for images of diffusion.
    *Reconstructed*: on logits, the gauge and the reduction per token.
    """

    phi: float = 0.7

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = super().problems()
        if not 0.0 <= self.phi <= 1.0:
            found.append(f"phi lies in [0, 1], got {self.phi!r}")
        return found

    def contrast(
        self, given: Float[Tensor, "*place v"], null: Float[Tensor, "*place v"], t: float
    ) -> Float[Tensor, "*place v"]:
        """CFG, times its factor."""
        guided = given + t * (given - null)
        if self.phi == 0.0:
            return guided
        spread = self._spread(guided)
        ratio = torch.where(spread > 0.0, self._spread(given) / spread, 1.0)
        return guided * (self.phi * ratio + (1.0 - self.phi))

    def _spread(self, logits: Tensor) -> Tensor:
        """Proportional to the standard deviation; the number of values drops out of the ratio."""
        fixed = self.fixed(logits)
        over = (-1,) if self.reduction == "token" else tuple(range(1, fixed.dim()))
        return self.norm(fixed - fixed.mean(over, keepdim=True))

"""CFG-Zero*: classifier-free guidance against a rescaled null prediction."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from hguide.guidance.reduced_contrast import ReducedContrast

__all__ = ["CFGZero"]


@dataclass(frozen=True)
class CFGZero(ReducedContrast):
    """CFG-Zero*: l' = c + t (c - a u) with a = <c, u> / (|u|^2 + 1e-8), the null logits scaled to fit the given ones.

    With w = 1 + t this is a u + w (c - a u). Where a = 1 it is CFG. Its second part, zero output in the first steps,
    would be uniform sampling here and is left out.

    Args:
        strength: see `NullContrast`.
        w: see `NullContrast`.
        schedule: see `NullContrast`.
        gauge: of the inner products; see `ReducedContrast`.
        reduction: "token", or "map" as for images of diffusion.
        start: see `Method`.
        stop: see `Method`.

    Source: arXiv 2503.18886; formula *stated* in diffusers' guider, for images of diffusion. *Reconstructed*: on
    logits, the gauge and the reduction per token.
    """

    def contrast(
        self, given: Float[Tensor, "*place v"], null: Float[Tensor, "*place v"], t: float
    ) -> Float[Tensor, "*place v"]:
        """c + t (c - a u)."""
        fixed = self.fixed(null)
        a = self.inner(self.fixed(given), fixed) / (self.inner(fixed, fixed) + 1e-8)
        return given + t * (given - a * null)

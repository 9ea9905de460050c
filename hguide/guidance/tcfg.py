"""Tangential classifier-free guidance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.guidance.reduced_contrast import ReducedContrast

__all__ = ["TCFG"]


@dataclass(frozen=True)
class TCFG(ReducedContrast):
    """TCFG: l' = c + t (c - <u, v> v), v the first right singular vector of the two rows [c; u].

    The null logits keep only the part along the direction that both predictions share most; where c and u are
    parallel it is CFG. v is found in closed form from the 2 x 2 matrix of inner products: its first eigenvector
    (cos a, sin a) has a = atan2(2 <c, u>, |c|^2 - |u|^2) / 2, and v is c cos a + u sin a, normalised.

    Args:
        strength: see `NullContrast`.
        w: see `NullContrast`.
        schedule: see `NullContrast`.
        gauge: of the inner products; see `ReducedContrast`.
        reduction: "token", or "map" for one direction per sample.
        start: see `Method`.
        stop: see `Method`.

    Source: arXiv 2503.18137; formula *stated* in diffusers' guider, for images of diffusion. *Reconstructed*: on
    logits, the gauge and the reduction per token.
    """

    def contrast(
        self, given: Float[Tensor, "*place v"], null: Float[Tensor, "*place v"], t: float
    ) -> Float[Tensor, "*place v"]:
        """c + t (c - projected u)."""
        c, u = self.fixed(given), self.fixed(null)
        cc, cu, uu = self.inner(c, c), self.inner(c, u), self.inner(u, u)
        angle = torch.atan2(2.0 * cu, cc - uu) / 2.0
        p, q = angle.cos(), angle.sin()
        squared = (p * p * cc + 2.0 * p * q * cu + q * q * uu).clamp_min(torch.finfo(cc.dtype).tiny)
        along = (p * cu + q * uu) / squared
        return given + t * (given - (along * p * given + along * q * null))

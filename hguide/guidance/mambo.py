"""MAMBO-G: classifier-free guidance damped where the two predictions lie far apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.guidance.reduced_contrast import ReducedContrast

__all__ = ["MAMBOG"]


@dataclass(frozen=True)
class MAMBOG(ReducedContrast):
    """MAMBO-G: l' = c + t exp(-alpha |c - u| / |u|) (c - u), the strength damped where the contrast is large.

    With w = 1 + t the weight is w' = 1 + (w - 1) exp(-alpha |n| / |u|). At alpha = 0 it is CFG.

    Args:
        strength: see `NullContrast`.
        w: see `NullContrast`.
        schedule: see `NullContrast`.
        gauge: of the norms; "centred" or "log_softmax", since the ratio is meaningless in the raw gauge of
            categorical logits.
        reduction: "token" damps each token by itself, "map" a sample as a whole.
        alpha: >= 0; 8 in the source.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: a negative alpha; what `ReducedContrast` raises.

    Source: arXiv 2508.03442; formula *stated* in diffusers' guider, for images of diffusion. *Reconstructed*: on
    logits, the gauge and the reduction per token.
    """

    alpha: float = 8.0

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = super().problems()
        if not 0.0 <= self.alpha < float("inf"):
            found.append(f"alpha is a finite number >= 0, got {self.alpha!r}")
        return found

    def contrast(
        self, given: Float[Tensor, "*place v"], null: Float[Tensor, "*place v"], t: float
    ) -> Float[Tensor, "*place v"]:
        """c + t exp(-alpha ratio) n."""
        u = self.fixed(null)
        size = self.norm(u).clamp_min(torch.finfo(u.dtype).tiny ** 0.5)
        ratio = self.norm(self.fixed(given) - u) / size
        return given + t * torch.exp(-self.alpha * ratio) * (given - null)

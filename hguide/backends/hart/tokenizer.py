"""The hybrid image tokenizer of HART: VAR's, with the continuous rest before the last scale's codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.var.tokenizer import TokenizerConfig, VARTokenizer
from hguide.grids import Grid

__all__ = ["HARTTokenizer", "HybridTokens", "TokenizerConfig"]


@dataclass(frozen=True, eq=False)
class HybridTokens:
    """What HART makes of pictures.

    Attributes:
        tokens: one `(b, h, w)` map per scale.
        rest: `(b, c, H, W)`, f less what all scales but the last make; the last scale's tokens are its nearest codes.
    """

    tokens: list[Int[Tensor, "b _ _"]]
    rest: Float[Tensor, "b c H W"]


class HARTTokenizer(VARTokenizer):
    """Images in [-1, 1] to token maps and a continuous rest, and back (arXiv 2410.10812, section 3.2).

    The network is VAR's. Sequences for HART end in codes that are added as they are: f_hat = sum over all scales but
    the last of phi_k(up(codes)), plus the last scale's codes without phi, plus a residual. `encode`, `decode` and
    `quantize.accumulate` are the discrete path, with phi at the last scale too: same tokens, another picture.
    """

    @torch.no_grad()
    def encode_hybrid(
        self, images: Float[Tensor, "b 3 height width"], grids: Sequence[Grid] | None = None
    ) -> HybridTokens:
        """Tokens and rest of images.

        Args:
            images: in [-1, 1].
            grids: (h, w) of each scale, the last being the latent's; None for the tokenizer's own schedule.

        Raises:
            ShapeError: the images do not fit the schedule.
        """
        return self.hybrid(self.latent(images), self.config.grids if grids is None else grids)

    def hybrid(self, f: Float[Tensor, "b c H W"], grids: Sequence[Grid]) -> HybridTokens:
        """Tokens and rest of a latent map f: the sum of all scales but the last, plus the rest, is f.

        Args:
            f: from `latent`.
            grids: of the schedule.
        """
        tokens, latents = self.quantize.encode_with_latents(f, grids)
        return HybridTokens(tokens, f - latents[-2] if len(latents) > 1 else f)

    def add_scale(
        self, f_hat: Float[Tensor, "b c H W"], codes: Float[Tensor, "b c h w"], index: int, grids: Sequence[Grid]
    ) -> Float[Tensor, "b c H W"]:
        """The latent map after one more scale: f_hat + phi_k(up(codes)), or f_hat + codes at the last.

        Args:
            f_hat: after the scales before.
            codes: of the scale, with their residual at the last one.
            index: of the scale.
            grids: of the schedule.
        """
        if index == len(grids) - 1:
            return f_hat + codes
        return f_hat + self.quantize.contribution(codes, index, len(grids), grids[-1])

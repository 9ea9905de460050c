"""Zero-shot editing as with VAR: in-painting, out-painting and class edits, by keeping codes of a given picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hguide.backends.multiscale_quantizer import MultiScaleQuantizer
from hguide.errors import ConfigError, ShapeError
from hguide.grids import Grid, Step

__all__ = ["Edit", "box_mask"]


@dataclass(frozen=True, eq=False)
class Edit:
    """The codes of a picture that generation keeps.

    h' = keep codebook[tokens] + (1 - keep) h, in place of the drawn codes h, before they are enlarged. The mask is
    resized to each scale (bilinear) and cut at 0.5; a map of up to three tokens is kept whole.

    Args:
        tokens: of the picture, one `(1, h, w)` map per scale (of bits `(1, h, w, bits)`), as `generator.encode` gives
            them.
        keep: `(H, W)` on the last scale's grid, True where the picture stays.

    Raises:
        ShapeError: more than one picture, or a mask on another grid.

    Source: VAR code (arXiv 2404.02905), the zero-shot editing notebook. *Reconstructed* for Infinity, whose official
    program has no editing: bits of the picture in place of drawn ones, by the same masks.
    """

    tokens: Sequence[Tensor]
    keep: Bool[Tensor, "H W"]

    def __post_init__(self) -> None:
        shapes = [tuple(tokens.shape) for tokens in self.tokens]
        if not shapes or any(len(shape) not in (3, 4) or shape[0] != 1 for shape in shapes):
            raise ShapeError(f"Edit: tokens are (1, h, w) or (1, h, w, bits) maps of one picture, got {shapes}.")
        if tuple(self.keep.shape) != shapes[-1][1:3]:
            raise ShapeError(f"Edit: keep is a mask on the last grid {shapes[-1][1:3]}, got {tuple(self.keep.shape)}.")

    def to(self, device: torch.device) -> Edit:
        """The same edit on a device, where a captured run finds it without moving anything."""
        return replace(self, tokens=[each.to(device) for each in self.tokens], keep=self.keep.to(device))

    def keep_at(self, grid: Grid) -> Bool[Tensor, "h w"]:
        """The mask at a scale."""
        if grid[0] * grid[1] <= 3:
            return torch.ones(grid, dtype=torch.bool, device=self.keep.device)
        if grid == tuple(self.keep.shape):
            return self.keep
        mask = F.interpolate(self.keep[None, None].float(), size=grid, mode="bilinear", align_corners=False)
        return mask[0, 0] > 0.5

    def mix(
        self, codes: Float[Tensor, "b c h w"], step: Step, quantize: MultiScaleQuantizer
    ) -> Float[Tensor, "b c h w"]:
        """The picture's codes where it is kept, else `codes`."""
        own = quantize.lookup(self._tokens_at(step, codes.shape[2:]).to(codes.device)).to(codes.dtype)
        return torch.where(self.keep_at(step.grid).to(codes.device), own, codes)

    def mix_bits(self, bits: Int[Tensor, "b h w d"], step: Step) -> Int[Tensor, "b h w d"]:
        """The picture's bits where it is kept, else `bits`."""
        own = self._tokens_at(step, bits.shape[1:]).to(bits)
        return torch.where(self.keep_at(step.grid).to(bits.device)[..., None], own, bits)

    def _tokens_at(self, step: Step, shape: Sequence[int]) -> Tensor:
        own = self.tokens[step.index]
        if tuple(own.shape[1:]) != tuple(shape):
            raise ShapeError(
                f"Edit: the picture's tokens at step {step.index} lie on {tuple(own.shape[1:])}, "
                f"the model's on {tuple(shape)}; encode the picture with the same model."
            )
        return own


def box_mask(grid: Grid, box: Sequence[float], *, inside: bool) -> Bool[Tensor, "H W"]:
    """A mask on a grid from a box in fractions of the picture.

    Args:
        grid: of the last scale.
        box: y0, x0, y1, x1 in [0, 1]; edges fall on round(fraction * side).
        inside: True where the box is kept (out-painting), False where it is generated anew (in-painting).

    Raises:
        ConfigError: a box outside the picture, or one that holds no token.
    """
    y0, x0, y1, x1 = box
    if not (0.0 <= y0 < y1 <= 1.0 and 0.0 <= x0 < x1 <= 1.0):
        raise ConfigError(f"a box is y0,x0,y1,x1 with 0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1, got {tuple(box)}.")
    top, left, bottom, right = (round(f * side) for f, side in zip((y0, x0, y1, x1), (*grid, *grid), strict=True))
    if top == bottom or left == right:
        raise ConfigError(f"the box {tuple(box)} holds no token of the {grid[0]}x{grid[1]} grid; make it larger.")
    mask = torch.full(grid, not inside, dtype=torch.bool)
    mask[top:bottom, left:right] = inside
    return mask

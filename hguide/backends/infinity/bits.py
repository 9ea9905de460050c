"""Binary spherical quantisation over scales: bits, their codes, and the running sum of their enlarged maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hguide.errors import ShapeError
from hguide.grids import Grid

__all__ = ["MultiScaleBits", "codes_of", "enlarge", "gather_patches", "next_map", "quantize", "spread_patches"]

PATCH = 2

Replace = Callable[[int, Tensor], Tensor]
"""`(scale, its bits) -> the bits that enter the running sum`."""


@dataclass(frozen=True, eq=False)
class MultiScaleBits:
    """A latent map in bits.

    Attributes:
        bits: of each scale, `(b, h, w, d)` int64: the signs of what the scales before left.
        sums: sum of the codes up to and with each scale, at the latent's size.
    """

    bits: list[Int[Tensor, "b _ _ d"]]
    sums: list[Float[Tensor, "b d H W"]]


def codes_of(bits: Int[Tensor, "b h w d"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "b d h w"]:
    """(2 bit - 1) / sqrt(d): a corner of the cube on the unit sphere.

    Args:
        bits: 0 or 1, on the tokenizer's grid.
        dtype: of the result.

    Source: BSQ (arXiv 2406.07548), as used by Infinity (arXiv 2412.04431).
    """
    return (bits.permute(0, 3, 1, 2).to(dtype) * 2.0 - 1.0) / math.sqrt(bits.shape[-1])


def enlarge(codes: Float[Tensor, "b d h w"], grid: Grid) -> Float[Tensor, "b d H W"]:
    """The codes at the latent's size (bilinear, corners not aligned)."""
    if tuple(codes.shape[2:]) == tuple(grid):
        return codes
    return F.interpolate(codes, size=grid, mode="bilinear", align_corners=False)


def next_map(total: Float[Tensor, "b d H W"], grid: Grid) -> Float[Tensor, "b d h w"]:
    """Input map of the next scale: the running sum at its grid.

    Bilinear without antialiasing, in generation and in the transformer's training; what the official tokenizer itself
    returns as inputs is area-resized and never used.
    """
    return enlarge(total, grid)


def gather_patches(maps: Tensor) -> Tensor:
    """`(b, 2h, 2w, d)` -> `(b, h, w, 4d)`: channel = bit * 4 + dy * 2 + dx."""
    return F.pixel_unshuffle(maps.permute(0, 3, 1, 2), PATCH).permute(0, 2, 3, 1)


def spread_patches(maps: Tensor) -> Tensor:
    """`(b, h, w, 4d)` -> `(b, 2h, 2w, d)`, the inverse of `gather_patches`."""
    return F.pixel_shuffle(maps.permute(0, 3, 1, 2), PATCH).permute(0, 2, 3, 1)


def quantize(latent: Float[Tensor, "b d H W"], grids: Sequence[Grid], replace: Replace | None = None) -> MultiScaleBits:
    """The bits of a latent map, scale by scale: the signs of the area-resized remainder.

    bit = remainder > 0; remainder -= enlarge(code). With `replace`, other bits enter the sum and the remainder
    (bitwise self-correction: the scales after see and repair the errors), while the scale's own bits stay.

    Args:
        latent: output of the encoder.
        grids: of the scales on the tokenizer's grid, the last being the latent's.
        replace: bits that enter the sum in place of the scale's own.

    Raises:
        ShapeError: the last grid is not the latent's.

    Source: arXiv 2412.04431, section 3; code.
    """
    size = (latent.shape[2], latent.shape[3])
    if tuple(grids[-1]) != size:
        raise ShapeError(f"the last grid is the latent's, {size[0]} x {size[1]}; got {grids[-1]}.")
    remainder, total = latent, torch.zeros_like(latent)
    found, sums = [], []
    for k, grid in enumerate(grids):
        small = remainder if tuple(grid) == size else F.interpolate(remainder, size=grid, mode="area")
        bits = (small > 0).to(torch.int64).permute(0, 2, 3, 1)
        found.append(bits)
        code = enlarge(codes_of(bits if replace is None else replace(k, bits), latent.dtype), size)
        remainder, total = remainder - code, total + code
        sums.append(total)
    return MultiScaleBits(found, sums)

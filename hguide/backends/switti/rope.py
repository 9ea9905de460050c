"""Rotary positions of Switti: columns turn the first half of the pairs of a head, rows the second."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Rotation", "map_rotation", "rotate"]


@dataclass(frozen=True, eq=False)
class Rotation:
    """Cosines and sines of the angles of a map's tokens, row-major, float32 or wider.

    Attributes:
        cos: `(l, head_dim / 2)`.
        sin: the same shape.
    """

    cos: Float[Tensor, "l pairs"]
    sin: Float[Tensor, "l pairs"]


def map_rotation(
    side: int,
    head_dim: int,
    *,
    theta: float,
    size: float,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Rotation:
    """Angles [c s f, r s f] of the token in row r and column c, f_j = theta^(-4j/d), j < d/4, s = size / (side - 1).

    Every map spans the same range [0, size], whatever its side.

    Args:
        side: of the square map; s = size for a side of 1, where r = c = 0.
        head_dim: d, a multiple of 4.
        theta: base of the frequencies.
        size: range of the coordinates.
        dtype: of the angles, float32 or wider.
        device: where they live.
    """
    frequencies = theta ** (-4.0 * torch.arange(head_dim // 4, dtype=dtype, device=device) / head_dim)
    places = torch.arange(side, dtype=dtype, device=device) * (size / max(side - 1, 1))
    turns = places[:, None] * frequencies
    rows = turns[:, None].expand(-1, side, -1)
    columns = turns[None].expand(side, -1, -1)
    angles = torch.cat([columns, rows], dim=-1).flatten(0, 1)
    return Rotation(angles.cos(), angles.sin())


def rotate(x: Float[Tensor, "rows heads l d"], rotation: Rotation) -> Float[Tensor, "rows heads l d"]:
    """Each pair of adjacent channels (a, b) becomes (a cos - b sin, a sin + b cos), in the type of the angles."""
    first, second = x.to(rotation.cos.dtype).unflatten(-1, (-1, 2)).unbind(-1)
    turned = (first * rotation.cos - second * rotation.sin, first * rotation.sin + second * rotation.cos)
    return torch.stack(turned, dim=-1).flatten(-2).to(x.dtype)

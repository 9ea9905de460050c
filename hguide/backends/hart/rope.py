"""Rotary positions of HART: along the text in one dimension, on the maps in two that share each rotated pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hguide.grids import Grid

__all__ = ["Rotation", "map_coordinates", "map_rotation", "rotate", "text_positions", "text_rotation"]

BASE = 10000.0


@dataclass(frozen=True, eq=False)
class Rotation:
    """Cosines and sines of the angles of some tokens, the same for all heads and blocks.

    Attributes:
        cos: `(rows, 1, l, head_dim)`.
        sin: the same shape.
    """

    cos: Float[Tensor, "rows 1 l d"]
    sin: Float[Tensor, "rows 1 l d"]


def text_positions(mask: Bool[Tensor, "*rows l"]) -> Int[Tensor, "*rows l"]:
    """cumsum(mask) - 1: tokens count from 0; padding in front has -1, padding behind the last token's position.

    Args:
        mask: True where a text token is no padding.
    """
    return mask.to(torch.int64).cumsum(-1) - 1


def text_rotation(positions: Int[Tensor, "rows l"], head_dim: int, dtype: torch.dtype) -> Rotation:
    """Angles [a, a] with a_j = p base^(-2j/d), j < d/2.

    Args:
        positions: p of each text token; padding in front has -1.
        head_dim: d.
        dtype: of the cosines and sines; the angles are float32 or wider.
    """
    angles = positions[:, :, None].to(_wide(dtype)) * _frequencies(head_dim, positions.device, _wide(dtype))
    return _rotation(torch.cat([angles, angles], dim=-1), dtype)


def map_coordinates(grid: Grid, last_side: int, device: torch.device | str | None = None) -> Float[Tensor, "l 2"]:
    """Row and column of each token of a map, row-major, stretched to the side of the last map.

    Args:
        grid: of the map.
        last_side: side of the last map.
        device: where the result lives.
    """
    rows, columns = (torch.arange(side, device=device) * (last_side / side) for side in grid)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)


def map_rotation(
    coordinates: Float[Tensor, "b l 2"], offset: Int[Tensor, " rows"], head_dim: int, dtype: torch.dtype
) -> Rotation:
    """Angles [r f, r f, c f, c f] with f_j = base^(-4j/d), j < d/4, and the text's last position added to r and c.

    Not the usual rotation in two dimensions: `rotate` pairs channel j with j + d/2, so that one member of a pair turns
    with the row and the other with the column. That is what the published weights were trained with.

    Args:
        coordinates: (r, c) of the tokens of each sample, or `(1, l, 2)` where they are the same for all.
        offset: position of the last text token of each row of the batch; rows are samples, stream by stream.
        head_dim: d.
        dtype: see `text_rotation`.
    """
    wide = _wide(dtype)
    places = coordinates.to(wide).repeat(offset.shape[0] // coordinates.shape[0], 1, 1) + offset[:, None, None]
    row, column = (places[..., None] * _frequencies(head_dim // 2, places.device, wide)).unbind(2)
    return _rotation(torch.cat([row, row, column, column], dim=-1), dtype)


def rotate(x: Float[Tensor, "rows heads l d"], rotation: Rotation) -> Float[Tensor, "rows heads l d"]:
    """x cos + rotate_half(x) sin, with rotate_half([a, b]) = [-b, a]."""
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * rotation.cos, torch.cat([-second, first], dim=-1), rotation.sin)


def _frequencies(dim: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, " half"]:
    return 1.0 / BASE ** (torch.arange(0, dim, 2, device=device, dtype=dtype) / dim)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _rotation(angles: Tensor, dtype: torch.dtype) -> Rotation:
    angles = angles.unsqueeze(1)
    return Rotation(angles.cos().to(dtype), angles.sin().to(dtype))

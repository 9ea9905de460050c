"""Rotary position embedding over rows and columns, shared by scales of different grids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hguide.errors import ConfigError
from hguide.grids import Grid

__all__ = ["positions", "rope_table", "rotate"]

BASE = 10000.0
LONG_SIDE = 128  # of the table that mode 1 resizes


def positions(side: int, reference: int, device: torch.device | str | None = None) -> Int[Tensor, " n"]:
    """Position of each row (or column) on the reference grid: round(r * reference / side), half to even.

    Args:
        side: rows of the scale.
        reference: rows of the reference grid.
        device: where the result lives.
    """
    return (torch.arange(side, device=device, dtype=torch.float32) * (reference / side)).round().long()


def rope_table(
    grids: Sequence[Grid],
    reference: Grid,
    head_dim: int,
    mode: int = 2,
    device: torch.device | str | None = None,
) -> Float[Tensor, "two l half"]:
    """cos and sin of the angles of every token of a run; half of the angles turn with the row, half with the column.

    angle_i = position * 10000^(-2i / (D/2)), i = 0..D/4-1, for D channels of a head.

    Args:
        grids: of the scales, coarse to fine.
        reference: the grid whose positions mode 2 uses, whatever the last scale of the run: of the largest picture of
            the same ratio of height to width.
        head_dim: channels D of one head.
        mode: 2 as published; 0 for plain indices; 1 for a table 128 long, resized to each grid (bilinear, corners
            aligned).
        device: where the table lives.

    Returns:
        `(2, L, D/2)` float32.

    Raises:
        ConfigError: another mode.

    Source: arXiv 2412.04431, code.
    """
    if mode not in (0, 1, 2):
        raise ConfigError(f"rope mode is 0, 1 or 2, got {mode!r}.")
    parts = [_table_of(grid, reference, head_dim, mode, device) for grid in grids]
    return torch.cat([part.flatten(1, 2) for part in parts], dim=1)


def rotate(
    x: Float[Tensor, "rows heads l d"], table: Float[Tensor, "two *rows l half"]
) -> Float[Tensor, "rows heads l d"]:
    """Turn the channel pairs (2j, 2j+1) by angle j: (x0 cos - x1 sin, x0 sin + x1 cos).

    Args:
        x: queries or keys.
        table: of the same tokens, from `rope_table`; or `(2, rows, 1, l, half)`, one for each row.

    Returns:
        New values, in the wider of the two types.
    """
    cos, sin = table.unbind(0)
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def _table_of(
    grid: Grid, reference: Grid, head_dim: int, mode: int, device: torch.device | str | None
) -> Float[Tensor, "two h w half"]:
    if mode == 1:
        long_rows, long_columns = (torch.arange(side, device=device) for side in _long_grid(reference))
        whole = _cos_sin(long_rows, long_columns, head_dim)
        channels = whole.permute(0, 3, 1, 2)
        resized = F.interpolate(channels, size=grid, mode="bilinear", align_corners=True)
        return resized.permute(0, 2, 3, 1)
    ends = reference if mode == 2 else grid
    rows, columns = (positions(side, end, device) for side, end in zip(grid, ends, strict=True))
    return _cos_sin(rows, columns, head_dim)


def _long_grid(reference: Grid) -> Grid:
    height, width = reference
    if height >= width:
        return LONG_SIDE, int(LONG_SIDE * width / height)
    return int(LONG_SIDE * height / width), LONG_SIDE


def _cos_sin(rows: Int[Tensor, " h"], columns: Int[Tensor, " w"], head_dim: int) -> Float[Tensor, "two h w half"]:
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, device=rows.device, dtype=torch.float32) / half
    frequencies = 1.0 / (BASE**exponents)
    by_row = torch.outer(rows.float(), frequencies)[:, None].expand(-1, len(columns), -1)
    by_column = torch.outer(columns.float(), frequencies)[None].expand(len(rows), -1, -1)
    angles = torch.cat([by_row, by_column], dim=-1)
    return torch.stack([angles.cos(), angles.sin()])

"""Attention between the tokens of maps, whose channels are all logits: far wider than flash kernels take."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hguide.grids import Grid

__all__ = ["add_attention"]

_SCORES = 1 << 24  # numbers in one block of scores: 64 MiB in float32


def add_attention(
    total: Float[Tensor, "b n v"],
    queries: Float[Tensor, "b n v"],
    keys: Float[Tensor, "b m v"],
    values: Float[Tensor, "b m v"],
    *,
    strength: float,
    temperature: float,
    rows: int = 0,
    window: tuple[Grid, int] | None = None,
) -> Float[Tensor, "b n v"]:
    """`total += strength softmax(Q K^T / temperature) V`, in place, block by block of query rows.

    Args:
        total: what is added to; contiguous, sharing no memory with the others.
        queries: one row per token.
        keys: rows attended to.
        values: rows that are mixed.
        strength: factor on the mixture.
        temperature: divides the inner products.
        rows: query rows per block; 0 takes as many as keep the scores of a block below 64 MiB.
        window: (grid, side): each token attends to the square of that odd side around it, cut at the border; queries
            and keys are then the same grid, row by row. None is the whole map.

    Returns:
        `total`.
    """
    batch, count, _ = queries.shape
    rows = rows or max(1, _SCORES // (batch * keys.shape[1]))
    for first in range(0, count, rows):
        last = min(first + rows, count)
        near = slice(None) if window is None else _near_rows(first, last, *window)
        scores = torch.bmm(queries[:, first:last], keys[:, near].transpose(1, 2)).div_(temperature)
        if window is not None:
            scores.masked_fill_(~_inside(first, last, near, window, scores.device), -torch.inf)
        weights = scores.softmax(-1)
        total[:, first:last].baddbmm_(weights, values[:, near], alpha=strength)
    return total


def _near_rows(first: int, last: int, grid: Grid, side: int) -> slice:
    """The tokens of all grid rows within reach of the query rows."""
    reach, (height, width) = side // 2, grid
    return slice(max(0, first // width - reach) * width, min(height, (last - 1) // width + reach + 1) * width)


def _inside(
    first: int, last: int, near: slice, window: tuple[Grid, int], device: torch.device
) -> Bool[Tensor, "rows keys"]:
    (_, width), side = window
    query = torch.arange(first, last, device=device)[:, None]
    key = torch.arange(near.start, near.stop, device=device)
    down = (query // width - key // width).abs()
    across = (query % width - key % width).abs()
    return (down <= side // 2) & (across <= side // 2)

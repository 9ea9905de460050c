"""SSG's update as one CUDA kernel: `(1 + beta) l - beta P l_prev`, where a product that accumulates first copies l.

Imported where it runs alone, since it needs Triton; `hguide.priors.operators` has the products that are its oracle.
`hguide.priors.update_tma_kernel` does the largest maps where the GPU has a copy engine.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from hguide.priors.compiled import aligned_rows, rows_are_aligned

__all__ = ["takes", "trial", "update"]

# The quickest of 28 tiles on an H100, as (positions, channels, inner, warps, stages); inner divides what rows of P are
# aligned to. From _LONG columns of P the larger tile pays; from _MANY blocks a taller one still fills the GPU.
_FLOAT, _NARROW, _NARROW_MANY = (64, 64, 32, 4, 3), (16, 32, 64, 4, 4), (64, 32, 64, 4, 4)
_WIDE, _WIDE_LONG = (64, 128, 32, 4, 3), (128, 128, 64, 8, 3)
_LONG, _MANY = 512, 264
# Entries of P up to which the kernel is the quicker one.
_HALF_ENTRIES, _FLOAT_ENTRIES = 1 << 21, 1 << 16


@triton.jit(do_not_specialize=["rows", "columns"])
@no_type_check
def _update(
    logits,
    previous,
    matrix,
    out,
    rows,
    columns,
    channels,
    stride,
    beta,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    INNER: tl.constexpr,
):
    """One block of positions and channels of one sample."""
    sample = tl.program_id(2).to(tl.int64)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    channel = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    total = tl.zeros((ROWS, CHANNELS), dtype=tl.float32)
    weight = matrix + row * stride
    for first in range(0, columns, INNER):
        column = first + tl.arange(0, INNER)
        # Unmasked along a row, so that loads are wide; past the last column `before` is 0.
        weights = tl.load(weight + column[None, :], mask=row < rows, other=0.0)
        there = (column[:, None] < columns) & (channel < channels)
        before = tl.load(previous + (sample * columns + column[:, None]) * channels + channel, mask=there, other=0.0)
        total = tl.dot(weights, before, total, input_precision="ieee")
    inside = (row < rows) & (channel < channels)
    place = (sample * rows + row) * channels + channel
    now = tl.load(logits + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, (1.0 + beta) * now - beta * total, mask=inside)


def takes(logits: Tensor, previous: Tensor, matrix: Tensor, out: Tensor) -> bool:
    """Whether the kernel is for these tensors: of one dtype, contiguous maps, P small enough and its rows aligned."""
    if logits.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return False
    entries = _FLOAT_ENTRIES if logits.dtype == torch.float32 else _HALF_ENTRIES
    whole = all(each.is_contiguous() for each in (logits, previous, out)) and rows_are_aligned(matrix)
    return whole and matrix.numel() <= entries and logits.dtype == previous.dtype == matrix.dtype


def _tile(logits: Tensor, columns: int) -> tuple[int, int, int, int, int]:
    batch, rows, channels = logits.shape
    if logits.dtype == torch.float32:
        return _FLOAT
    if channels <= _NARROW[1]:
        return _NARROW if batch * triton.cdiv(rows, _NARROW[0]) <= _MANY else _NARROW_MANY
    return _WIDE if columns < _LONG else _WIDE_LONG


def update(
    logits: Float[Tensor, "b rows v"],
    previous: Float[Tensor, "b columns v"],
    matrix: Float[Tensor, "rows columns"],
    beta: float,
    out: Float[Tensor, "b rows v"],
) -> None:
    """Write `(1 + beta) l - beta P l_prev`, accumulated in float32 and rounded once.

    Args:
        logits: l.
        previous: l_prev.
        matrix: P; `takes` says whether the tensors will do.
        beta: strength.
        out: result; it may be `logits`.
    """
    batch, rows, channels = logits.shape
    columns = matrix.shape[1]
    most_rows, most_channels, inner, warps, stages = _tile(logits, columns)
    block = min(most_channels, max(16, triton.next_power_of_2(channels)))
    height = min(most_rows, max(16, triton.next_power_of_2(rows)))
    grid = (triton.cdiv(rows, height), triton.cdiv(channels, block), batch)
    with torch.cuda.device_of(logits):
        _update[grid](
            logits,
            previous,
            matrix,
            out,
            rows,
            columns,
            channels,
            matrix.stride(0),
            beta,
            ROWS=height,
            CHANNELS=block,
            INNER=inner,
            num_warps=warps,
            num_stages=stages,
        )


def trial() -> None:
    """Update one number."""
    one = torch.ones(1, 1, 1, device="cuda")
    update(one, one, aligned_rows(one[0]), 0.0, torch.empty_like(one))

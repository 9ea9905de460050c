"""SSG's update as one CUDA kernel: `(1 + beta) l - beta P l_prev`, where a product that accumulates first copies l.

Imported where it runs alone, since it needs Triton; `hguide.priors.operators` has the products that are its oracle.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

__all__ = ["takes", "trial", "update"]

# Measured on an H100: a block of positions and channels; entries of P up to which the kernel is the quicker one.
_ROWS, _INNER = 64, 32
_HALF_CHANNELS, _HALF_ENTRIES = 128, 1 << 18
_FLOAT_CHANNELS, _FLOAT_ENTRIES = 64, 1 << 16


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
    for first in range(0, columns, INNER):
        column = first + tl.arange(0, INNER)
        known = (row < rows) & (column[None, :] < columns)
        weights = tl.load(matrix + row * columns + column[None, :], mask=known, other=0.0)
        there = (column[:, None] < columns) & (channel < channels)
        before = tl.load(previous + (sample * columns + column[:, None]) * channels + channel, mask=there, other=0.0)
        total = tl.dot(weights, before, total, input_precision="ieee")
    inside = (row < rows) & (channel < channels)
    place = (sample * rows + row) * channels + channel
    now = tl.load(logits + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, (1.0 + beta) * now - beta * total, mask=inside)


def takes(logits: Tensor, previous: Tensor, matrix: Tensor) -> bool:
    """Whether the kernel is for these tensors: contiguous, of one dtype, and P small enough."""
    if logits.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return False
    entries = _FLOAT_ENTRIES if logits.dtype == torch.float32 else _HALF_ENTRIES
    whole = all(each.is_contiguous() for each in (logits, previous, matrix))
    return whole and matrix.numel() <= entries and logits.dtype == previous.dtype == matrix.dtype


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
        matrix: P; `takes` says whether the three will do.
        beta: strength.
        out: result, contiguous; it may be `logits`.
    """
    batch, rows, channels = logits.shape
    columns = matrix.shape[1]
    widest = _FLOAT_CHANNELS if logits.dtype == torch.float32 else _HALF_CHANNELS
    block = min(widest, max(16, triton.next_power_of_2(channels)))
    height = min(_ROWS, max(16, triton.next_power_of_2(rows)))
    grid = (triton.cdiv(rows, height), triton.cdiv(channels, block), batch)
    with torch.cuda.device_of(logits):
        _update[grid](
            logits, previous, matrix, out, rows, columns, channels, beta, ROWS=height, CHANNELS=block, INNER=_INNER
        )


def trial() -> None:
    """Update one number."""
    one = torch.ones(1, 1, 1, device="cuda")
    update(one, one, one[0], 0.0, torch.empty_like(one))

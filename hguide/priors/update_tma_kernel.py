"""SSG's update of large maps on Hopper and newer GPUs, whose copy engine (TMA) brings blocks of all operands.

The same product as `hguide.priors.update_kernel`, which serves small maps, where describing the operands to the engine
takes longer than it saves. Imported where it runs alone, since it needs a Triton that knows descriptors.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from hguide.priors.compiled import aligned_rows, rows_are_aligned

__all__ = ["takes", "trial", "update"]

# The quickest of ten tiles on an H100 without a loop over tiles in the kernel. With two passes or fewer over the
# columns of P there is nothing to load ahead, and a third stage only keeps blocks off the processor.
_ROWS, _CHANNELS, _INNER, _WARPS = 128, 128, 64, 4
_STAGES, _STAGES_OF_SHORT, _SHORT = 3, 2, 2 * _INNER
# From here on it beats the kernel without the engine; entries of P up to which it beats the product.
_LONG, _MANY_LOGITS, _ENTRIES = 512, 1 << 22, 1 << 21
_FIRST_CAPABILITY, _ADDRESS, _ADDRESSED = (9, 0), 16, 8


@triton.jit(do_not_specialize=["columns"])
@no_type_check
def _update(
    logits,
    previous,
    matrix,
    out,
    columns,
    beta,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    INNER: tl.constexpr,
):
    """One block of positions and channels of one sample; the engine reads 0 outside a map and writes nothing there."""
    row = tl.program_id(0) * ROWS
    channel = tl.program_id(1) * CHANNELS
    sample = tl.program_id(2)
    total = tl.zeros((ROWS, CHANNELS), dtype=tl.float32)
    for column in range(0, columns, INNER):
        weights = matrix.load([row, column])
        before = previous.load([sample, column, channel]).reshape(INNER, CHANNELS)
        total = tl.dot(weights, before, total)
    now = logits.load([sample, row, channel]).reshape(ROWS, CHANNELS)
    guided = (1.0 + beta) * now.to(tl.float32) - beta * total
    out.store([sample, row, channel], guided.to(now.dtype).reshape(1, ROWS, CHANNELS))


def takes(logits: Tensor, previous: Tensor, matrix: Tensor, out: Tensor) -> bool:
    """Whether the kernel is for these tensors: of one half-precision dtype, large, laid out as the engine reads."""
    if logits.dtype not in (torch.float16, torch.bfloat16) or not logits.dtype == previous.dtype == matrix.dtype:
        return False
    if not _is_large(logits, matrix) or torch.cuda.get_device_capability(logits.device) < _FIRST_CAPABILITY:
        return False
    maps = (logits, previous, out)
    whole = all(each.is_contiguous() for each in maps) and rows_are_aligned(matrix)
    return whole and all(each.data_ptr() % _ADDRESS == 0 for each in (*maps, matrix))


def _is_large(logits: Tensor, matrix: Tensor) -> bool:
    batch, _, channels = logits.shape
    large = batch > 0 and (matrix.shape[1] >= _LONG or logits.numel() >= _MANY_LOGITS)
    return large and matrix.numel() <= _ENTRIES and channels >= _CHANNELS and channels % _ADDRESSED == 0


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
    grid = (triton.cdiv(rows, _ROWS), triton.cdiv(channels, _CHANNELS), batch)
    with torch.cuda.device_of(logits):
        _update[grid](
            TensorDescriptor.from_tensor(logits, [1, _ROWS, _CHANNELS]),
            TensorDescriptor.from_tensor(previous, [1, _INNER, _CHANNELS]),
            TensorDescriptor.from_tensor(matrix, [_ROWS, _INNER]),
            TensorDescriptor.from_tensor(out, [1, _ROWS, _CHANNELS]),
            columns,
            beta,
            ROWS=_ROWS,
            CHANNELS=_CHANNELS,
            INNER=_INNER,
            num_warps=_WARPS,
            num_stages=_STAGES_OF_SHORT if columns <= _SHORT else _STAGES,
        )


def trial() -> None:
    """Update one position, where the device has the engine."""
    if torch.cuda.get_device_capability() >= _FIRST_CAPABILITY:
        one = torch.ones(1, 1, _ADDRESSED, device="cuda", dtype=torch.bfloat16)
        update(one, one, aligned_rows(one[0, :, :1]), 0.0, torch.empty_like(one))

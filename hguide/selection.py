"""The largest logits of each position, and their order: NumPy's vectorised selection on CPUs, torch's elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["ascending", "largest"]

# One thread of NumPy's AVX selection is as quick as about eight of torch's, which are shared out by rows.
_FEW_THREADS = 8
# Numbers taken at a time: they and their places stay in the cache of a core.
_BLOCK = 1 << 17


def largest(logits: Float[Tensor, "b n v"], k: int) -> tuple[Float[Tensor, "b n k"], Int[Tensor, "b n k"], bool]:
    """The k largest per position, in no order.

    Args:
        logits: `(b, n, v)`.
        k: from 1 to v - 1.

    Returns:
        Values, their channels, and whether a logit that was left out equals one that was taken.
    """
    if not _by_numpy(logits):
        values, channels = logits.topk(k, dim=-1, sorted=False)
        reached = int(torch.count_nonzero(logits >= values.amin(-1, keepdim=True)))
        return values, channels, reached > values.numel()
    first = logits.shape[-1] - k
    values, channels = _empty(logits, k)
    reached = 0
    for rows, taken, places in _blocks(logits, values, channels):
        places[:] = np.argpartition(rows, first, axis=-1)[:, first:]
        taken[:] = np.take_along_axis(rows, places, axis=-1)
        reached += int(np.count_nonzero(rows >= taken.min(-1, keepdims=True)))
    return values, channels, reached > values.numel()


def ascending(values: Float[Tensor, "b n c"]) -> tuple[Float[Tensor, "b n c"], Int[Tensor, "b n c"]]:
    """The values of each position from small to large, and where they were."""
    if not _by_numpy(values):
        return values.sort(dim=-1)
    ordered, order = _empty(values, values.shape[-1])
    for rows, into, places in _blocks(values, ordered, order):
        places[:] = np.argsort(rows, axis=-1)
        into[:] = np.sort(rows, axis=-1)
    return ordered, order


def _by_numpy(values: Tensor) -> bool:
    known = values.dtype in (torch.float32, torch.float64)
    return known and values.device.type == "cpu" and torch.get_num_threads() <= _FEW_THREADS


def _empty(values: Tensor, width: int) -> tuple[Tensor, Tensor]:
    shape = (*values.shape[:-1], width)
    return values.new_empty(shape), values.new_empty(shape, dtype=torch.int64)


def _blocks(*tensors: Tensor) -> Iterator[tuple[np.ndarray, ...]]:
    """The same few positions of all of them, as NumPy's views of their memory."""
    arrays = [tensor.detach().flatten(0, -2).numpy() for tensor in tensors]
    size = max(1, _BLOCK // tensors[0].shape[-1])
    for start in range(0, len(arrays[0]), size):
        yield tuple(array[start : start + size] for array in arrays)

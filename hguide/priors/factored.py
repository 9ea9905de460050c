"""The products of a prior in factors, cut so that the map between the two stays near the core."""

from __future__ import annotations

import torch
from torch import Tensor

from hguide.priors.compiled import Factors

__all__ = ["carry", "extrapolate_through"]

# Bytes of the map between two factors: what stays near the core on CPU, what is cheap to hold elsewhere.
_CPU_WORKSPACE, _DEVICE_WORKSPACE = 16 << 20, 256 << 20
# With fewer columns or channels at once the products are too small to run at their rate.
_FEWEST_COLUMNS, _FEWEST_CHANNELS = 10, 128


def carry(matrix: Factors, maps: Tensor) -> Tensor:
    """P l by two products, `(b, h * w, v)` to `(b, H * W, v)`."""
    batch, _, channels = maps.shape
    (height, width), (_, columns) = matrix.source, matrix.target
    wide = torch.matmul(matrix.across, maps.view(batch, height, width, channels))
    return torch.matmul(matrix.down, wide.reshape(batch, -1, columns * channels)).reshape(batch, -1, channels)


def extrapolate_through(matrix: Factors, flat: Tensor, before: Tensor, beta: float, result: Tensor) -> None:
    """Write `(1 + beta) l - beta P l_prev`.

    All samples at once where what lies between the products is small, else some columns of one sample's result at a
    time, else some of its channels.

    Args:
        matrix: P.
        flat: l, `(b, H * W, v)`.
        before: l_prev, `(b, h * w, v)`.
        beta: strength.
        result: `(b, H * W, v)`, contiguous.
    """
    (batch, _, channels), columns = flat.shape, matrix.target[1]
    workspace = _CPU_WORKSPACE if matrix.across.device.type == "cpu" else _DEVICE_WORKSPACE
    between = matrix.source[0] * matrix.across.shape[0] * channels * matrix.dtype.itemsize
    fitting = min(columns, workspace * columns // between)
    if flat.dtype != matrix.dtype or not flat.is_contiguous() or fitting < min(_FEWEST_COLUMNS, columns):
        parts = max(1, min(-(-between // workspace), channels // _FEWEST_CHANNELS))
        _by_channels(matrix, flat, before, beta, result, -(-channels // parts))
    elif batch * between <= workspace:
        _at_once(matrix, flat, before, beta, result)
    else:
        parts = -(-columns // fitting)
        _by_columns(matrix, flat, before.to(matrix.dtype), beta, result, -(-columns // parts))


def _at_once(matrix: Factors, flat: Tensor, before: Tensor, beta: float, result: Tensor) -> None:
    """Two products for all samples, the second of which accumulates into the result."""
    batch, _, channels = flat.shape
    (height, width), (rows, columns) = matrix.source, matrix.target
    across = matrix.across.expand(batch * height, *matrix.across.shape)
    wide = torch.bmm(across, before.reshape(batch * height, width, channels).to(matrix.dtype))
    shape = (batch, rows, columns * channels)
    down = matrix.down.expand(batch, *matrix.down.shape)
    between = wide.view(batch, -1, columns * channels)
    torch.baddbmm(flat.view(shape), down, between, beta=1 + beta, alpha=-beta, out=result.view(shape))


def _by_columns(matrix: Factors, flat: Tensor, before: Tensor, beta: float, result: Tensor, size: int) -> None:
    """The same per sample and `size` columns of its result, which lie together in each of its rows."""
    (height, width), (rows, columns) = matrix.source, matrix.target
    channels = flat.shape[2]
    terms = matrix.across.view(-1, columns, width)
    # One buffer for the whole call: fresh ones per product cost page faults.
    buffer = matrix.across.new_empty(height * terms.shape[0] * size * channels)
    for sample, old, new in zip(flat, before, result, strict=True):
        for start in range(0, columns, size):
            across = terms[:, start : start + size].flatten(0, 1)
            wide = buffer[: height * across.shape[0] * channels].view(height, -1, channels)
            torch.bmm(across.expand(height, *across.shape), old.reshape(height, width, channels), out=wide)
            place = slice(start * channels, (start + size) * channels)
            now, guided = sample.view(rows, -1)[:, place], new.view(rows, -1)[:, place]
            between = wide.view(matrix.down.shape[1], -1)
            torch.addmm(now, matrix.down, between, beta=1 + beta, alpha=-beta, out=guided)


def _by_channels(matrix: Factors, flat: Tensor, before: Tensor, beta: float, result: Tensor, size: int) -> None:
    """The same per sample and `size` channels, in any dtype and layout of the maps."""
    (height, width), (rows, columns) = matrix.source, matrix.target
    batch, _, channels = flat.shape
    across = matrix.across.expand(height, *matrix.across.shape)
    wide_buffer = matrix.across.new_empty(height * across.shape[1] * size)
    prior_buffer = matrix.across.new_empty(rows * columns * size)
    for sample in range(batch):
        for start in range(0, channels, size):
            part = slice(start, min(start + size, channels))
            old, now, new = before[sample][:, part], flat[sample][:, part], result[sample][:, part]
            count = old.shape[1]
            wide = wide_buffer[: height * across.shape[1] * count].view(height, -1, count)
            prior = prior_buffer[: rows * columns * count].view(rows, -1)
            torch.bmm(across, old.reshape(height, width, count).to(matrix.dtype), out=wide)
            torch.mm(matrix.down, wide.view(-1, columns * count), out=prior)
            prior = prior.view(-1, count)
            # lerp(P, l, 1 + beta) = l + beta (l - P), one pass over both.
            if now.dtype == matrix.dtype:
                torch.lerp(prior, now, 1.0 + beta, out=new)
            else:
                new.copy_(torch.lerp(prior, now.to(matrix.dtype), 1.0 + beta))

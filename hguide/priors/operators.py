"""The matrix products of a run: the prior of a map, and SSG's update in one go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.errors import ShapeError
from hguide.grids import Grid
from hguide.priors.compiled import Factors, Operator, operator

__all__ = ["Factors", "Operator", "apply", "extrapolate", "extrapolate_rows", "operator"]

# Bytes of the intermediate map between two factors: what stays near the core on CPU, what is cheap to hold elsewhere.
_CPU_WORKSPACE, _DEVICE_WORKSPACE = 8 << 20, 256 << 20


def apply(matrix: Operator, logits: Float[Tensor, "*batch h w v"], target: Grid) -> Float[Tensor, "*batch H W v"]:
    """P l for each channel.

    Args:
        matrix: the compiled prior.
        logits: `(..., h, w, v)`.
        target: `(H, W)`.

    Returns:
        `(..., H, W, v)` in the dtype of `logits`; the product runs in that of the matrix.

    Raises:
        ShapeError: the matrix was compiled for other grids.
    """
    *batch, height, width, channels = logits.shape
    _require_grids(matrix, (height, width), target[0] * target[1])
    maps = logits.reshape(-1, height * width, channels).to(matrix.dtype)
    with _no_autocast(logits):
        carried = _factored(matrix, maps) if isinstance(matrix, Factors) else torch.matmul(matrix, maps)
    return carried.reshape(*batch, *target, channels).to(logits.dtype)


def extrapolate(
    logits: Float[Tensor, "b h w v"],
    previous: Float[Tensor, "b h0 w0 v"],
    matrix: Operator,
    beta: int | float,
    out: Float[Tensor, "b h w v"] | None = None,
) -> Float[Tensor, "b h w v"]:
    """`l + beta (l - P l_prev)`, SSG's update (arXiv 2602.05534, eq. 8), without the prior in memory.

    A dense P is one batched product, `(1 + beta) l - beta P l_prev`. Factors are two products per sample and slice of
    channels. Half precision with a float32 matrix is computed in float32, sample by sample, and rounded once.

    Args:
        logits: the map of this step.
        previous: the map of the step before, on its own grid.
        matrix: the prior compiled for the two grids.
        beta: strength; at 0 the result is `logits` itself, or its copy in `out`.
        out: contiguous result, written in place; it may be `logits`.

    Returns:
        `(b, h, w, v)` in the dtype of `logits`: `out` where given.

    Raises:
        ShapeError: grids differ from those of the matrix, or `out` does not fit.
    """
    batch, height, width, channels = logits.shape
    _require_grids(matrix, (previous.shape[1], previous.shape[2]), height * width)
    if out is not None and (out.shape != logits.shape or out.dtype != logits.dtype or not out.is_contiguous()):
        raise ShapeError(
            f"out must be contiguous, {tuple(logits.shape)} {logits.dtype}; got {tuple(out.shape)} {out.dtype}."
        )
    if beta == 0:
        return logits if out is None else out.copy_(logits)
    flat = logits.reshape(batch, height * width, channels)
    before = previous.reshape(batch, -1, channels)
    with _no_autocast(logits):
        if torch.is_grad_enabled() and (logits.requires_grad or previous.requires_grad):
            result = _update(flat, before, matrix, beta)
            return result.view(logits.shape) if out is None else out.copy_(result.view(logits.shape))
        result = torch.empty_like(flat, memory_format=torch.contiguous_format) if out is None else out.view(flat.shape)
        if isinstance(matrix, Factors):
            _extrapolate_factored(flat, before, matrix, beta, result)
        elif matrix.dtype == logits.dtype:
            spread = matrix.expand(batch, *matrix.shape)
            torch.baddbmm(flat, spread, before, beta=1 + beta, alpha=-beta, out=result)
        else:
            for sample, old, new in zip(flat, before, result, strict=True):
                wide, old = sample.to(matrix.dtype), old.to(matrix.dtype)
                new.copy_(torch.addmm(wide, matrix, old, beta=1 + beta, alpha=-beta))
    return result.view(logits.shape)


def extrapolate_rows(
    logits: Float[Tensor, "b n v"],
    positions: Int[Tensor, "b n"],
    previous: Float[Tensor, "b h0 w0 v"],
    matrix: Operator,
    beta: int | float,
) -> Float[Tensor, "b n v"]:
    """SSG's update on a partial map: `l + beta (l - P[positions] l_prev)`, the other rows of P never used.

    Args:
        logits: the logits at `positions`.
        positions: flat positions on the matrix's target grid; their order may differ between samples.
        previous: the full map of the step before.
        matrix: the prior compiled for the two grids.
        beta: strength; at 0 the result is `logits` itself.

    Returns:
        `(b, n, v)` in the dtype of `logits`.

    Raises:
        ShapeError: the map before lies on another grid than the matrix's source.
    """
    _require_grids(matrix, (previous.shape[1], previous.shape[2]), matrix.shape[0])
    if beta == 0:
        return logits
    rows = matrix[positions]
    before = previous.reshape(previous.shape[0], -1, previous.shape[-1])
    with _no_autocast(logits):
        wide, before = logits.to(rows.dtype), before.to(rows.dtype)
        return torch.baddbmm(wide, rows, before, beta=1 + beta, alpha=-beta).to(logits.dtype)


def _update(flat: Tensor, before: Tensor, matrix: Operator, beta: float) -> Tensor:
    """The update by plain operations, which gradients pass."""
    maps = before.to(matrix.dtype)
    prior = _factored(matrix, maps) if isinstance(matrix, Factors) else torch.matmul(matrix, maps)
    wide = flat.to(matrix.dtype)
    return (wide + beta * (wide - prior)).to(flat.dtype)


def _factored(matrix: Factors, maps: Tensor) -> Tensor:
    """Two products, `(b, h * w, v)` to `(b, H * W, v)`."""
    batch, _, channels = maps.shape
    (height, width), (_, columns) = matrix.source, matrix.target
    wide = torch.matmul(matrix.across, maps.view(batch, height, width, channels))
    return torch.matmul(matrix.down, wide.view(batch, -1, columns * channels)).view(batch, -1, channels)


def _extrapolate_factored(flat: Tensor, before: Tensor, matrix: Factors, beta: float, result: Tensor) -> None:
    """The update through factors, per sample and slice of channels, so that what lies between stays in the cache."""
    (height, width), (rows, columns) = matrix.source, matrix.target
    batch, _, channels = flat.shape
    step = _slice_width(matrix, channels)
    across = matrix.across.expand(height, *matrix.across.shape)
    for sample in range(batch):
        old, now, new = before[sample], flat[sample], result[sample]
        for part in _slices(channels, step):
            size = part.stop - part.start
            wide = torch.bmm(across, old[:, part].reshape(height, width, size).to(matrix.dtype))
            prior = torch.mm(matrix.down, wide.view(-1, columns * size)).view(rows * columns, size)
            # lerp(P, l, 1 + beta) = l + beta (l - P), one pass over both.
            if now.dtype == matrix.dtype:
                torch.lerp(prior, now[:, part], 1.0 + beta, out=new[:, part])
            else:
                new[:, part] = torch.lerp(prior, now[:, part].to(matrix.dtype), 1.0 + beta)


def _slice_width(matrix: Factors, channels: int) -> int:
    """Channels per slice, a multiple of 64, such that the intermediate map fits the workspace."""
    workspace = _CPU_WORKSPACE if matrix.across.device.type == "cpu" else _DEVICE_WORKSPACE
    per_channel = matrix.source[0] * matrix.across.shape[0] * matrix.across.element_size()
    return min(channels, max(128, workspace // per_channel // 64 * 64))


def _slices(channels: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, channels)) for start in range(0, channels, step))


def _require_grids(matrix: Operator, source: Grid, target: int) -> None:
    if tuple(matrix.shape) != (target, source[0] * source[1]) or (
        isinstance(matrix, Factors) and matrix.source != source
    ):
        raise ShapeError(
            f"the matrix is compiled for {matrix.shape[1]} -> {matrix.shape[0]} positions, "
            f"but the maps have {source[0]}x{source[1]} and {target}; compile it for these grids."
        )


def _no_autocast(logits: Tensor) -> AbstractContextManager[None]:
    """Autocast would round float32 logits to half precision in the product."""
    if torch.amp.is_autocast_available(logits.device.type):
        return torch.autocast(logits.device.type, enabled=False)
    return nullcontext()

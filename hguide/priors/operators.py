"""The matrix products of a run: the prior of a map, and SSG's update in one go."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.autocast import no_autocast
from hguide.errors import ShapeError
from hguide.grids import Grid
from hguide.kernels import kernels
from hguide.priors.compiled import Factors, Operator, operator

__all__ = ["Factors", "Operator", "apply", "extrapolate", "extrapolate_rows", "operator"]

# Bytes of the intermediate map between two factors: what stays near the core on CPU, what is cheap to hold elsewhere.
_CPU_WORKSPACE, _DEVICE_WORKSPACE = 16 << 20, 256 << 20


def apply(matrix: Operator, logits: Float[Tensor, "*batch h w v"], target: Grid) -> Float[Tensor, "*batch H W v"]:
    """P l for each channel.

    Args:
        matrix: the compiled prior, dense or factors.
        logits: `(..., h, w, v)`.
        target: `(H, W)`.

    Returns:
        `(..., H, W, v)` in the dtype of `logits`; the product runs in that of the matrix.

    Raises:
        ShapeError: the matrix was compiled for other grids.
    """
    *batch, height, width, channels = logits.shape
    _require_grids(matrix, (height, width), target)
    maps = logits.reshape(-1, height * width, channels).to(matrix.dtype)
    with no_autocast(logits.device):
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
        matrix: the prior compiled for the two grids, dense or factors.
        beta: strength; at 0 the result is `logits` itself, or its copy in `out`.
        out: contiguous result, written in place; it may be `logits`, but not share memory with `previous`.

    Returns:
        `(b, h, w, v)` in the dtype of `logits`: `out` where given.

    Raises:
        ShapeError: grids differ from those of the matrix, or `out` does not fit.
    """
    batch, height, width, channels = logits.shape
    _require_grids(matrix, (previous.shape[1], previous.shape[2]), (height, width))
    if out is not None and (out.shape != logits.shape or out.dtype != logits.dtype or not out.is_contiguous()):
        raise ShapeError(
            f"out must be contiguous, {tuple(logits.shape)} {logits.dtype}; got {tuple(out.shape)} {out.dtype}."
        )
    if beta == 0:
        return logits if out is None else out.copy_(logits)
    flat = logits.reshape(batch, height * width, channels)
    before = previous.reshape(batch, -1, channels)
    with no_autocast(logits.device):
        if torch.is_grad_enabled() and (logits.requires_grad or previous.requires_grad):
            result = _update(flat, before, matrix, beta)
            return result.view(logits.shape) if out is None else out.copy_(result.view(logits.shape))
        result = torch.empty_like(flat, memory_format=torch.contiguous_format) if out is None else out.view(flat.shape)
        if isinstance(matrix, Factors):
            _extrapolate_factored(flat, before, matrix, beta, result)
        elif matrix.dtype == logits.dtype:
            _extrapolate_dense(flat, before, matrix, beta, result)
        else:
            for sample, old, new in zip(flat, before, result, strict=True):
                wide, old = sample.to(matrix.dtype), old.to(matrix.dtype)
                new.copy_(torch.addmm(wide, matrix, old, beta=1 + beta, alpha=-beta))
    return result.view(logits.shape) if out is None else out


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
        matrix: the prior compiled for the two grids, dense or factors.
        beta: strength; at 0 the result is `logits` itself.

    Returns:
        `(b, n, v)` in the dtype of `logits`.

    Raises:
        ShapeError: the map before lies on another grid than the matrix's source.
    """
    _require_grids(matrix, (previous.shape[1], previous.shape[2]), None)
    if beta == 0:
        return logits
    before = previous.reshape(previous.shape[0], -1, previous.shape[-1])
    with no_autocast(logits.device):
        rows = matrix[positions]
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
    return torch.matmul(matrix.down, wide.reshape(batch, -1, columns * channels)).reshape(batch, -1, channels)


def _extrapolate_dense(flat: Tensor, before: Tensor, matrix: Tensor, beta: float, result: Tensor) -> None:
    """The update through the matrix, in the dtype of all of them."""
    kernel = kernels("hguide.priors.update_kernel") if flat.is_cuda else None
    if kernel is not None and kernel.takes(flat, before, matrix):
        kernel.update(flat, before, matrix, beta, result)
    else:
        spread = matrix.expand(flat.shape[0], *matrix.shape)
        torch.baddbmm(flat, spread, before, beta=1 + beta, alpha=-beta, out=result)


def _extrapolate_factored(flat: Tensor, before: Tensor, matrix: Factors, beta: float, result: Tensor) -> None:
    """The update through factors: as many samples at once as keep what lies between small, else slices of channels."""
    batch, _, channels = flat.shape
    between = matrix.source[0] * matrix.across.shape[0] * channels * matrix.dtype.itemsize
    together = _workspace(matrix) // between
    if together == 0 or flat.dtype != matrix.dtype or not flat.is_contiguous():
        _extrapolate_slices(flat, before, matrix, beta, result)
    elif together >= batch:
        _extrapolate_whole(flat, before, matrix, beta, result)
    else:
        groups = (each.split(together) for each in (flat, before, result))
        for now, old, new in zip(*groups, strict=True):
            _extrapolate_whole(now, old, matrix, beta, new)


def _extrapolate_whole(flat: Tensor, before: Tensor, matrix: Factors, beta: float, result: Tensor) -> None:
    """Two products for all samples, the second of which accumulates into the result."""
    batch, _, channels = flat.shape
    (height, width), (rows, columns) = matrix.source, matrix.target
    across = matrix.across.expand(batch * height, *matrix.across.shape)
    wide = torch.bmm(across, before.reshape(batch * height, width, channels).to(matrix.dtype))
    shape = (batch, rows, columns * channels)
    down = matrix.down.expand(batch, *matrix.down.shape)
    between = wide.view(batch, -1, columns * channels)
    torch.baddbmm(flat.view(shape), down, between, beta=1 + beta, alpha=-beta, out=result.view(shape))


def _extrapolate_slices(flat: Tensor, before: Tensor, matrix: Factors, beta: float, result: Tensor) -> None:
    """Per sample and slice of channels, so that what lies between the products stays in the cache."""
    (height, width), (rows, columns) = matrix.source, matrix.target
    batch, _, channels = flat.shape
    across = matrix.across.expand(height, *matrix.across.shape)
    size = _slice_width(matrix, channels)
    # Two buffers for the whole call: fresh ones per product cost page faults.
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


def _slice_width(matrix: Factors, channels: int) -> int:
    """Channels per slice: about equal slices, the intermediate map of each within the workspace."""
    workspace = _workspace(matrix)
    per_channel = matrix.source[0] * matrix.across.shape[0] * matrix.across.element_size()
    count = max(1, min(-(-channels * per_channel // workspace), channels // 128))
    return -(-channels // count)


def _workspace(matrix: Factors) -> int:
    return _CPU_WORKSPACE if matrix.across.device.type == "cpu" else _DEVICE_WORKSPACE


def _require_grids(matrix: Operator, source: Grid, target: Grid | None) -> None:
    compiled: tuple[object, object]
    given: tuple[object, object]
    if isinstance(matrix, Factors):
        compiled, given = (matrix.source, matrix.target), (source, target or matrix.target)
    else:
        rows, columns = matrix.shape
        compiled, given = (columns, rows), (source[0] * source[1], target[0] * target[1] if target else rows)
    if compiled != given:
        sizes = f"{source[0]}x{source[1]} -> {target[0]}x{target[1]}" if target else f"{source[0]}x{source[1]}"
        raise ShapeError(
            f"the prior is compiled for {compiled[0]} -> {compiled[1]}, but the maps are {sizes}; "
            "compile it for these grids."
        )

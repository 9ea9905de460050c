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
from hguide.priors.factored import carry, extrapolate_through

__all__ = ["Factors", "Operator", "apply", "extrapolate", "extrapolate_rows", "operator"]

# In the order they are asked.
_CUDA_KERNELS = ("hguide.priors.update_tma_kernel", "hguide.priors.update_kernel")


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
        carried = carry(matrix, maps) if isinstance(matrix, Factors) else torch.matmul(matrix, maps)
    return carried.reshape(*batch, *target, channels).to(logits.dtype)


def extrapolate(
    logits: Float[Tensor, "b h w v"],
    previous: Float[Tensor, "b h0 w0 v"],
    matrix: Operator,
    beta: int | float,
    out: Float[Tensor, "b h w v"] | None = None,
) -> Float[Tensor, "b h w v"]:
    """`l + beta (l - P l_prev)`, SSG's update (arXiv 2602.05534, eq. 8), without the prior in memory.

    A dense P is one batched product, `(1 + beta) l - beta P l_prev`. Factors are two products, on parts of
    large maps. Half precision with a float32 matrix is computed in float32, sample by sample, and rounded once.

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
            extrapolate_through(matrix, flat, before, beta, result)
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
    prior = carry(matrix, maps) if isinstance(matrix, Factors) else torch.matmul(matrix, maps)
    wide = flat.to(matrix.dtype)
    return (wide + beta * (wide - prior)).to(flat.dtype)


def _extrapolate_dense(flat: Tensor, before: Tensor, matrix: Tensor, beta: float, result: Tensor) -> None:
    """The update through the matrix, in the dtype of all of them."""
    for name in _CUDA_KERNELS if flat.is_cuda else ():
        kernel = kernels(name)
        if kernel is not None and kernel.takes(flat, before, matrix, result):
            kernel.update(flat, before, matrix, beta, result)
            return
    spread = matrix.expand(flat.shape[0], *matrix.shape)
    torch.baddbmm(flat, spread, before, beta=1 + beta, alpha=-beta, out=result)


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

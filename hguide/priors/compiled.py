"""Priors compiled for one pair of grids: a matrix, or its factors where they are faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.grids import Grid, Scale, Step
from hguide.priors.base import LinearPrior, SeparablePrior

__all__ = ["Factors", "Operator", "aligned_rows", "holding", "operator", "rows_are_aligned"]

# Measured on CPU, float32: factors win from twice fewer multiplications on maps of 10x10 and more. On other
# devices one dense product is the cheaper launch until the difference is large.
_CPU_ADVANTAGE, _DEVICE_ADVANTAGE, _SMALLEST_MAP = 2.0, 4.0, 100
# Entries; a kernel reads rows of P in pieces of up to this many.
_ALIGNMENT = 64


@dataclass(frozen=True, eq=False)
class Factors:
    """P = sum_t Y_t (x) X_t, laid out for two matrix products.

    Attributes:
        across: `(T * W, w)`, the X_t below each other: the first product makes rows of T * W.
        down: `(H, h * T)`, the Y_t interleaved: the second product sums over rows and terms at once.
        source: `(h, w)`.
        target: `(H, W)`.
    """

    across: Float[Tensor, "TW w"]
    down: Float[Tensor, "H hT"]
    source: Grid
    target: Grid

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that products are computed in."""
        return self.across.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """`(H * W, h * w)`, the shape of the matrix they stand for."""
        return self.target[0] * self.target[1], self.source[0] * self.source[1]

    def __getitem__(self, positions: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch hw"]:
        """Rows of the matrix, `P[positions]`."""
        height, width = self.source
        down = self.down.view(self.target[0], height, -1)[positions // self.target[1]]
        across = self.across.view(-1, self.target[1], width).transpose(0, 1)[positions % self.target[1]]
        return (down @ across).flatten(-2)


Operator = Tensor | Factors
"""A compiled prior: the matrix `(H * W, h * w)`, or its factors. Both give rows by `operator[positions]`."""

_held: ContextVar[list[Operator] | None] = ContextVar("held", default=None)


def operator(
    prior: LinearPrior,
    source: Grid,
    target: Grid,
    step: Step | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Operator:
    """The compiled prior, from a bounded cache.

    Args:
        prior: what to compile.
        source: `(h, w)`.
        target: `(H, W)`.
        step: part of the key (index and count) only where the prior depends on it.
        device: where the products run.
        dtype: that of the logits. Half precision on a CUDA device keeps its dtype, since the product accumulates in
            float32 there; elsewhere the operator is float32 and the products convert.

    Returns:
        Factors where they save enough work (see the constants above), else the matrix.
    """
    of_step = (step.index, step.count) if step is not None and prior.depends_on_step else None
    if dtype in (torch.float16, torch.bfloat16) and device.type != "cuda":
        dtype = torch.float32
    found = _compiled(prior, source, target, of_step, device, dtype)
    if (held := _held.get()) is not None:
        held.append(found)
    return found


@contextmanager
def holding() -> Iterator[list[Operator]]:
    """The operators given out inside: the cache forgets old ones, which a CUDA graph would go on reading."""
    held: list[Operator] = []
    token = _held.set(held)
    try:
        yield held
    finally:
        _held.reset(token)


@lru_cache(maxsize=256)
def _compiled(
    prior: LinearPrior,
    source: Grid,
    target: Grid,
    of_step: tuple[int, int] | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Operator:
    step = None if of_step is None else Step(*of_step, call=0, scale=Scale(of_step[0], *target))
    # The cache outlives the caller's inference mode, and its tensors must work outside it too.
    with torch.inference_mode(False), torch.no_grad():
        # An intermediate map in half precision would be rounded twice.
        if isinstance(prior, SeparablePrior) and dtype not in (torch.float16, torch.bfloat16):
            terms = prior.factors(source, target, step)
            if _factors_pay(len(terms), source, target, device):
                across = torch.cat([x for _, x in terms])
                down = torch.stack([y for y, _ in terms], dim=-1).flatten(1)
                return Factors(across.to(device, dtype), down.to(device, dtype), source, target)
        matrix = prior.matrix(source, target, step).to(device, dtype)
        return aligned_rows(matrix) if device.type == "cuda" else matrix


def aligned_rows(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The same matrix, each row starting at a multiple of 64 entries, with zeros between: a view of a padded one."""
    rows, columns = matrix.shape
    padded = matrix.new_zeros(rows, -(-columns // _ALIGNMENT) * _ALIGNMENT)
    padded[:, :columns] = matrix
    return padded[:, :columns]


def rows_are_aligned(matrix: Float[Tensor, "rows columns"]) -> bool:
    """Whether rows lie as `aligned_rows` lays them, and the storage holds the last one to its end."""
    stride, along = matrix.stride()
    held = matrix.untyped_storage().nbytes() // matrix.element_size() - matrix.storage_offset()
    return along == 1 and stride % _ALIGNMENT == 0 and held >= matrix.shape[0] * stride


def _factors_pay(terms: int, source: Grid, target: Grid, device: torch.device) -> bool:
    (height, width), (rows, columns) = source, target
    dense = rows * columns * height * width
    factored = terms * height * columns * (width + rows)
    advantage = _CPU_ADVANTAGE if device.type == "cpu" else _DEVICE_ADVANTAGE
    return rows * columns >= _SMALLEST_MAP and dense >= advantage * factored

"""Kernel distance (KD): unbiased squared maximum mean discrepancy with a cubic polynomial kernel."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import ConfigError
from hguide.experiments.measures.pair_measure import PairMeasure
from hguide.experiments.measures.rows import Rows, checked_pair

__all__ = ["ROWS_AT_ONCE", "KernelDistance", "kernel_distance", "kernel_distance_blocks", "polynomial_kernel"]

ROWS_AT_ONCE = 1024


def polynomial_kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """k(x, y) = (x.y / d + 1)^3 (arXiv 1801.01401, section 4).

    Args:
        x: rows.
        y: rows.
    """
    return (x @ y.T / x.shape[1] + 1).pow(3)


def kernel_distance(sample: Float[Tensor, "n d"], reference: Float[Tensor, "m e"]) -> float:
    """Unbiased squared MMD over all pairs; may be below zero, as an unbiased estimate of zero must.

    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i,j} k(x_i, y_j) (arXiv 1801.01401, section 4,
    on all samples instead of blocks). Unbiased for rows drawn independently; `kernel_statistic` is for crops that
    share scenes and for sets with a fixed number per class.

    Args:
        sample: generated rows.
        reference: real rows, as many.

    Raises:
        ConfigError: counts differ or are below two.
        ShapeError: dimensions differ.
        NumericalError: NaN or infinity.
    """
    x, y = checked_pair(sample, reference)
    cross = sum(float(polynomial_kernel(part, y).sum()) for part in x.split(ROWS_AT_ONCE)) / (len(x) * len(y))
    return _mean_of_pairs(x) + _mean_of_pairs(y) - 2 * cross


def _mean_of_pairs(rows: Tensor) -> float:
    """Mean kernel over ordered pairs of different rows."""
    total = 0.0
    for first, part in enumerate(rows.split(ROWS_AT_ONCE)):
        kernel = polynomial_kernel(part, rows)
        kernel.diagonal(first * ROWS_AT_ONCE).zero_()
        total += float(kernel.sum())
    return total / (len(rows) * (len(rows) - 1))


def kernel_distance_blocks(
    sample: Float[Tensor, "n d"],
    reference: Float[Tensor, "m e"],
    size: int = 1000,
    blocks: int = 100,
    seed: int = 0,
) -> tuple[float, float]:
    """Mean and standard deviation of the kernel distance over random subsets, the form that published tables use.

    The subsets overlap, so that the deviation is no standard error.

    Args:
        sample: generated rows.
        reference: real rows, as many.
        size: rows of each side per subset, drawn without replacement.
        blocks: number of subsets.
        seed: of the draws.

    Raises:
        ConfigError: counts differ, or a subset is larger than the whole.
    """
    x, y = checked_pair(sample, reference)
    if not 2 <= size <= len(x) or blocks < 1:
        raise ConfigError(f"cannot draw {blocks} subsets of {size} rows from {len(x)}: 2 to {len(x)} rows each.")
    random = np.random.default_rng(seed)
    found = [
        kernel_distance(
            x[torch.from_numpy(random.permutation(len(x))[:size])],
            y[torch.from_numpy(random.permutation(len(y))[:size])],
        )
        for _ in range(blocks)
    ]
    return float(np.mean(found)), float(np.std(found))


class KernelDistance(PairMeasure[Rows]):
    """`kernel_distance` over all samples, or over blocks, fed batch by batch; keeps the rows.

    Args:
        size: rows per block; None for all samples at once, which has the smaller variance.
        blocks: number of blocks.
        seed: of the draw of blocks.
    """

    name = "KD"
    higher_is_better = False

    def __init__(self, size: int | None = None, blocks: int = 100, seed: int = 0) -> None:
        super().__init__(Rows(), size=size, blocks=blocks, seed=seed)

    def compute(self) -> float:
        """Kernel distance of what was gathered."""
        self.check_counts()
        rows = self.sample.joined(), self.reference.joined()
        if self._options["size"] is None:
            return kernel_distance(*rows)
        return kernel_distance_blocks(*rows, **self._options)[0]

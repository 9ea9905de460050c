"""The kernel distance as a function of how often each scene and each seed is counted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from hguide.errors import ConfigError
from hguide.experiments.measures.kernel_distance import ROWS_AT_ONCE, polynomial_kernel
from hguide.experiments.measures.rows import checked_pair

__all__ = ["kernel_statistic"]


def kernel_statistic(
    sample: Float[Tensor, "n d"],
    reference: Float[Tensor, "m e"],
    sample_groups: Int[Tensor, " n"] | None = None,
    reference_groups: Int[Tensor, " m"] | None = None,
) -> Callable[[Float64[Tensor, " n"], Float64[Tensor, " n"]], float]:
    """`kernel_distance` with groups, for `bootstrap`; kernels are computed once, 8 bytes per pair of groups.

    A resampled set holds copies of the same group; pairs of copies are left out like pairs within a group. The mean
    over resamplings is then the estimate itself, where counting k(x, x) would shift it upward.

    Args:
        sample: generated rows.
        reference: real rows, as many.
        sample_groups: what is resampled as one, e.g. the seed of each row.
        reference_groups: likewise, e.g. the scene of each crop.
    """
    x, y = checked_pair(sample, reference)
    mine, theirs = _Groups(sample_groups, len(x)), _Groups(reference_groups, len(y))
    inner_x, inner_y, cross = _sums(x, x, mine, mine), _sums(y, y, theirs, theirs), _sums(x, y, mine, theirs)
    inner_x.fill_diagonal_(0)
    inner_y.fill_diagonal_(0)

    def statistic(sample_weights: Tensor, reference_weights: Tensor) -> float:
        a, b = mine.weights(sample_weights), theirs.weights(reference_weights)
        pairs = mine.pairs(a), theirs.pairs(b)
        if not all(pairs):
            return float("nan")
        total = (a @ mine.sizes) * (b @ theirs.sizes)
        return float(a @ inner_x @ a / pairs[0] + b @ inner_y @ b / pairs[1] - 2 * (a @ cross @ b) / total)

    return statistic


class _Groups:
    """Rows that share a weight."""

    def __init__(self, ids: Tensor | None, count: int) -> None:
        ids = torch.arange(count) if ids is None else ids.cpu()
        if len(ids) != count:
            raise ConfigError(f"{len(ids)} group ids were given for {count} rows.")
        self.place: Tensor
        _, self.place = torch.unique(ids, return_inverse=True)
        self.count = int(self.place.max()) + 1
        self.sizes = torch.bincount(self.place, minlength=self.count).double()
        self.first = torch.empty(self.count, dtype=torch.long)
        self.first[self.place] = torch.arange(count)

    def weights(self, rows: Tensor) -> Tensor:
        """Weight of each group."""
        found = rows[self.first]
        if not torch.equal(found[self.place], rows):
            raise ConfigError("rows of one group were given different weights: resample by the same groups.")
        return found

    def pairs(self, weights: Tensor) -> float:
        """Number of ordered pairs of rows of different groups."""
        counted = weights * self.sizes
        return float(counted.sum().square() - counted.square().sum())


def _sums(x: Tensor, y: Tensor, rows: _Groups, columns: _Groups) -> Tensor:
    """Kernel summed over the rows of each pair of groups."""
    out = torch.zeros(rows.count, columns.count, dtype=torch.float64)
    for part, place in zip(x.split(ROWS_AT_ONCE), rows.place.split(ROWS_AT_ONCE), strict=True):
        kernel = polynomial_kernel(part, y)
        narrow = torch.zeros(len(part), columns.count, dtype=torch.float64).index_add_(1, columns.place, kernel)
        out.index_add_(0, place, narrow)
    return out

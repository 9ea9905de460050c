"""The kernel distance of clustered rows, as a function of how often each seed and each scene is counted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hguide.errors import ConfigError
from hguide.experiments.measures.clusters import Clusters
from hguide.experiments.measures.kernel_distance import ROWS_AT_ONCE, polynomial_kernel
from hguide.experiments.measures.rows import checked_pair

__all__ = ["kernel_statistic"]


def kernel_statistic(
    sample: Float[Tensor, "n d"],
    reference: Float[Tensor, "m e"],
    seeds: Clusters | None = None,
    scenes: Clusters | None = None,
) -> Callable[[Float64[Tensor, " n"], Float64[Tensor, " n"]], float]:
    """Unbiased squared MMD of clustered rows, for `bootstrap`; all weights one give the estimate itself.

    As `kernel_distance`, which it equals where each row is its own cluster, but its means over pairs
    - leave out pairs within a cluster, and pairs of copies of one: crops of a scene are alike, and counting k(x, x)
      would shift every resampling upward;
    - give each stratum its share of pairs, sum_{s,t} (m_s m_t / m^2) mean_{pairs of s and t} k: in a set with a fixed
      number per class, pairs of one class are too few among the pairs left, which would bias the mean downward.

    The kernels are computed once and take 8 bytes per pair of clusters.

    Args:
        sample: generated rows.
        reference: real rows, as many.
        seeds: of the sample's rows; by default each row is its own cluster.
        scenes: of the reference's rows, likewise.

    Raises:
        ConfigError: counts differ, or a stratum has one cluster only.
        ShapeError: dimensions differ.
        NumericalError: NaN or infinity.
    """
    x, y = checked_pair(sample, reference)
    mine, theirs = _Weights(seeds, len(x)), _Weights(scenes, len(y))
    inner_x, inner_y, cross = _sums(x, x, mine, mine), _sums(y, y, theirs, theirs), _sums(x, y, mine, theirs)
    inner_x.fill_diagonal_(0)
    inner_y.fill_diagonal_(0)

    def statistic(sample_weights: Tensor, reference_weights: Tensor) -> float:
        a, b = mine.of(sample_weights), theirs.of(reference_weights)
        between = a @ cross @ b / ((a @ mine.sizes) * (b @ theirs.sizes))
        return float(mine.mean_of_pairs(inner_x, a) + theirs.mean_of_pairs(inner_y, b) - 2 * between)

    return statistic


class _Weights:
    """Clusters in an order that keeps strata together."""

    def __init__(self, clusters: Clusters | None, count: int) -> None:
        clusters = clusters or Clusters.of(range(count))
        if len(clusters.ids) != count:
            raise ConfigError(f"{len(clusters.ids)} cluster ids were given for {count} rows.")
        strata = list(clusters.stratum_of.values())
        by_stratum = sorted(range(clusters.count), key=lambda place: str(strata[place]))
        self.place = torch.tensor(by_stratum).argsort()[clusters.groups]
        self.count = clusters.count
        self.sizes = torch.bincount(self.place, minlength=self.count).double()
        self.first = torch.empty(self.count, dtype=torch.long)
        self.first[self.place] = torch.arange(count)
        named = [str(strata[place]) for place in by_stratum]
        self.strata = [slice(named.index(name), named.index(name) + named.count(name)) for name in dict.fromkeys(named)]
        lone = [name for name in dict.fromkeys(named) if named.count(name) == 1]
        if lone:
            what = "all rows are" if len(named) == 1 else f"stratum {lone[0]!r} is"
            raise ConfigError(f"{what} of one cluster, which leaves no pair to compare.")

    def of(self, rows: Tensor) -> Tensor:
        """Weight of each cluster."""
        found = rows[self.first]
        if not torch.equal(found[self.place], rows):
            raise ConfigError("rows of one cluster were given different weights: resample by the same clusters.")
        return found

    def mean_of_pairs(self, sums: Tensor, weights: Tensor) -> Tensor:
        """Mean kernel over pairs of different clusters, each stratum with its share."""
        counted = weights * self.sizes
        total = weights @ sums @ weights
        for part in self.strata:
            own, rows = weights[part], counted[part]
            inside = own @ sums[part, part] @ own
            # A resampling that leaves a small stratum one cluster has no pair: the mean of all its pairs stands in.
            whole = sums[part, part].sum() / _pairs(self.sizes[part])
            mean = inside / _pairs(rows) if _pairs(rows) > 0 else whole
            total = total - inside + mean * rows.sum().square()
        return total / counted.sum().square()


def _pairs(rows: Tensor) -> Tensor:
    """Number of ordered pairs of rows of different clusters."""
    return rows.sum().square() - rows.square().sum()


def _sums(x: Tensor, y: Tensor, rows: _Weights, columns: _Weights) -> Tensor:
    """Kernel summed over the rows of each pair of clusters."""
    out = torch.zeros(rows.count, columns.count, dtype=torch.float64)
    for part, place in zip(x.split(ROWS_AT_ONCE), rows.place.split(ROWS_AT_ONCE), strict=True):
        narrow = torch.zeros(len(part), columns.count, dtype=torch.float64)
        out.index_add_(0, place, narrow.index_add_(1, columns.place, polynomial_kernel(part, y)))
    return out

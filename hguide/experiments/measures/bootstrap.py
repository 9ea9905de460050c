"""Bootstrap intervals over the scenes of the reference and the seeds of the samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from hguide.errors import ConfigError, NumericalError
from hguide.experiments.measures.clusters import Clusters

__all__ = ["Interval", "Kind", "Statistic", "bootstrap", "bootstrap_difference", "interval_of", "replicates_of"]

Statistic = Callable[[Tensor, Tensor], float]
Kind = Literal["percentile", "centred"]


@dataclass(frozen=True)
class Interval:
    """An estimate and where it may lie.

    Attributes:
        estimate: on all rows, each once.
        low: lower end.
        high: upper end.
        bias: mean over the replicates less the estimate. Where it is not small beside the width (FD, precision), the
            percentile interval is shifted by it, and a centred one is not.
        level: nominal coverage.
        kind: "percentile" or "centred".
        n_scenes: distinct scenes of the reference, 0 without a reference.
        n_seeds: distinct seeds of the sample.
        replicates: number of resamplings.
    """

    estimate: float
    low: float
    high: float
    bias: float
    level: float
    kind: Kind
    n_scenes: int
    n_seeds: int
    replicates: int

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is one."""
        return not self.low <= 0 <= self.high

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def bootstrap(
    statistic: Statistic,
    seeds: Clusters,
    scenes: Clusters | None = None,
    *,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    kind: Kind = "percentile",
) -> Interval:
    """Interval of a statistic, scenes and seeds drawn with replacement, independently of each other.

    The scenes of a replicate depend on the scenes, `seed` and the replicate only, so that cells of a table that share
    a reference share its resamplings.

    Args:
        statistic: function of how often each row of the sample and of the reference is counted, such as
            `kernel_statistic` returns.
        seeds: of the sample's rows.
        scenes: of the reference's rows; None for a statistic without reference.
        replicates: number of resamplings.
        level: nominal coverage.
        seed: of the resampling.
        kind: "percentile", or "centred": the percentile interval less the bias of the replicates.

    Raises:
        ConfigError: options that cannot work.
        NumericalError: a replicate is not finite.
    """
    found = replicates_of(statistic, seeds, scenes, replicates=replicates, seed=seed)
    estimate = float(statistic(seeds.ones(), _ones(scenes)))
    return interval_of(estimate, found, seeds, scenes, level=level, kind=kind)


def bootstrap_difference(
    first: Statistic,
    second: Statistic,
    first_seeds: Clusters,
    second_seeds: Clusters,
    scenes: Clusters | None = None,
    *,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    kind: Kind = "percentile",
) -> Interval:
    """Interval of first - second, paired: each replicate draws the same seeds and the same scenes for both.

    Args:
        first: statistic of one guidance.
        second: statistic of the other, against the same reference rows.
        first_seeds: of the rows of the first.
        second_seeds: of the rows of the second; the same seeds, in any order.
        scenes: of the reference's rows.
        replicates: number of resamplings.
        level: nominal coverage.
        seed: of the resampling.
        kind: as in `bootstrap`.

    Raises:
        ConfigError: the two have other seeds, or options that cannot work.
        NumericalError: a replicate is not finite.
    """
    if first_seeds.stratum_of != second_seeds.stratum_of:
        lone = sorted(map(str, set(first_seeds.stratum_of) ^ set(second_seeds.stratum_of)))
        what = f"{len(lone)} seeds are in one only, such as {', '.join(lone[:4])}" if lone else "their strata differ"
        raise ConfigError(
            f"paired differences need the same seeds in both, got {first_seeds.count} and {second_seeds.count}: {what}."
        )
    options = {"replicates": replicates, "seed": seed}
    one = replicates_of(first, first_seeds, scenes, **options)
    other = replicates_of(second, second_seeds, scenes, **options)
    estimate = first(first_seeds.ones(), _ones(scenes)) - second(second_seeds.ones(), _ones(scenes))
    return interval_of(float(estimate), one - other, first_seeds, scenes, level=level, kind=kind)


def replicates_of(
    statistic: Statistic, seeds: Clusters, scenes: Clusters | None = None, *, replicates: int = 1000, seed: int = 0
) -> Float64[np.ndarray, " replicates"]:
    """The statistic on each resampling; equal arguments give equal arrays, and the same draws for any statistic.

    Args:
        statistic: as in `bootstrap`.
        seeds: of the sample's rows.
        scenes: of the reference's rows.
        replicates: number of resamplings.
        seed: of the resampling.
    """
    if replicates < 2:
        raise ConfigError(f"a bootstrap needs at least two replicates, got {replicates}.")
    found = np.empty(replicates)
    for replicate in range(replicates):
        drawn = seeds.draw(np.random.default_rng([seed, replicate, 0]))
        real = _ones(None) if scenes is None else scenes.draw(np.random.default_rng([seed, replicate, 1]))
        found[replicate] = statistic(drawn, real)
    if not np.isfinite(found).all():
        raise NumericalError(
            f"{int((~np.isfinite(found)).sum())} of {replicates} replicates are not finite: {seeds.count} seeds and "
            f"{0 if scenes is None else scenes.count} scenes are too few for this statistic."
        )
    return found


def interval_of(
    estimate: float,
    found: Float64[np.ndarray, " replicates"],
    seeds: Clusters,
    scenes: Clusters | None = None,
    *,
    level: float = 0.95,
    kind: Kind = "percentile",
) -> Interval:
    """Interval of an estimate from its replicates, e.g. of stored ones."""
    if not 0 < level < 1 or kind not in ("percentile", "centred"):
        raise ConfigError(f"level is between 0 and 1 and kind is percentile or centred, got {level} and {kind!r}.")
    bias = float(found.mean() - estimate)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2]) - (bias if kind == "centred" else 0.0)
    count = 0 if scenes is None else scenes.count
    return Interval(estimate, float(low), float(high), bias, level, kind, count, seeds.count, len(found))


def _ones(scenes: Clusters | None) -> Tensor:
    return torch.zeros(0, dtype=torch.float64) if scenes is None else scenes.ones()

"""The floor of a measure: its value between real pictures and other real pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.errors import ConfigError
from hguide.experiments.measures.bootstrap import Interval, Kind, Statistic, bootstrap
from hguide.experiments.measures.clusters import Clusters

__all__ = ["Floor", "even_rows", "train_test_floor"]

Build = Callable[[Tensor, Tensor, Clusters, Clusters], Statistic]


@dataclass(frozen=True)
class Floor:
    """What a perfect generator would score, train crops standing for its sample.

    Attributes:
        interval: value and interval; its `n_seeds` counts train scenes, its `n_scenes` test scenes.
        count: crops of each side.
        train_scenes: distinct scenes among the train crops.
        test_scenes: distinct scenes among the test crops.
    """

    interval: Interval
    count: int
    train_scenes: int
    test_scenes: int

    def __str__(self) -> str:
        return f"{self.interval} ({self.count} crops of {self.train_scenes} train and {self.test_scenes} test scenes)"


def even_rows(clusters: Clusters, count: int, seed: int = 0) -> Int[Tensor, " count"]:
    """Rows spread over as many scenes as there are: one random crop of each, then a second of each, and so on.

    Args:
        clusters: the scene of each row.
        count: rows wanted.
        seed: of the choice.

    Raises:
        ConfigError: fewer rows than that.
    """
    total = len(clusters.ids)
    if not 1 <= count <= total:
        raise ConfigError(f"{count} rows were asked for, of {total}.")
    random = np.random.default_rng([seed, 2])
    turn = np.empty(total)
    groups = clusters.groups.numpy()
    for place in range(clusters.count):
        rows = np.flatnonzero(groups == place)
        turn[rows] = random.permutation(len(rows))
    order = np.lexsort((random.random(total), turn))
    return torch.from_numpy(np.sort(order[:count]))


def train_test_floor(
    build: Build,
    train: Float[Tensor, "n d"],
    test: Float[Tensor, "m d"],
    train_scenes: Clusters,
    test_scenes: Clusters,
    count: int,
    *,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    kind: Kind = "percentile",
) -> Floor:
    """A measure between train crops, in the place of the sample, and test crops, at the table's count.

    Args:
        build: makes the statistic of (sample rows, reference rows, their clusters), for instance
            `kernel_statistic`, or `lambda x, y, seeds, scenes: frechet_statistic(x, y)`.
        train: rows of train crops.
        test: rows of test crops.
        train_scenes: scene of each train crop.
        test_scenes: scene of each test crop.
        count: crops of each side, the count of the table's cells, since the bias of most measures depends on it.
        replicates: number of resamplings.
        level: nominal coverage.
        seed: of the choice of crops and of the resampling.
        kind: as in `bootstrap`.

    Raises:
        ConfigError: a side has fewer crops, or both have a scene in common.
    """
    shared = set(train_scenes.ids) & set(test_scenes.ids)
    if shared:
        raise ConfigError(
            f"{len(shared)} scenes are on both sides, such as {min(map(str, shared))}: that is no floor but a copy. "
            "Scene ids must be unique over both splits."
        )
    if count > min(len(train), len(test)):
        raise ConfigError(
            f"a floor of {count} crops needs as many of each side, got {len(train)} train and {len(test)} test crops."
        )
    mine, theirs = even_rows(train_scenes, count, seed), even_rows(test_scenes, count, seed)
    sample, reference = _chosen(train_scenes, mine), _chosen(test_scenes, theirs)
    statistic = build(train[mine], test[theirs], sample, reference)
    found = bootstrap(statistic, sample, reference, replicates=replicates, level=level, seed=seed, kind=kind)
    return Floor(found, count, sample.count, reference.count)


def _chosen(clusters: Clusters, rows: Int[Tensor, " count"]) -> Clusters:
    def pick(values: Sequence[int | str]) -> tuple[int | str, ...]:
        return tuple(values[row] for row in rows.tolist())

    return Clusters(pick(clusters.ids), None if clusters.strata is None else pick(clusters.strata))

"""KD against double loops and torchmetrics."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hguide.errors import ConfigError
from hguide.experiments.measures import kernel_distance as module
from hguide.experiments.measures.clusters import Clusters
from hguide.experiments.measures.kernel_distance import (
    KernelDistance,
    kernel_distance,
    kernel_distance_blocks,
    polynomial_kernel,
)
from hguide.experiments.measures.kernel_statistic import kernel_statistic

EXACT = 1e-11
QUICK = settings(derandomize=True, deadline=None, max_examples=25)


def rows(seed: int, count: int = 24, dimensions: int = 5, shift: float = 0.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, 1, (count, dimensions)))


def kernel(u: torch.Tensor, v: torch.Tensor) -> float:
    return (float(u @ v) / len(u) + 1) ** 3


def inner_of(z: torch.Tensor, clusters: list[int]) -> float:
    pairs = [(i, j) for i, j in itertools.product(range(len(z)), repeat=2) if clusters[i] != clusters[j]]
    return float(np.mean([kernel(z[i], z[j]) for i, j in pairs]))


def by_loops(x: torch.Tensor, y: torch.Tensor, a: list[int] | None = None, b: list[int] | None = None) -> float:
    """Every pair by itself; pairs within a cluster left out."""
    a, b = a or list(range(len(x))), b or list(range(len(y)))
    return inner_of(x, a) + inner_of(y, b) - 2 * float(np.mean([kernel(u, v) for u in x for v in y]))


def test_agrees_with_double_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows(0), rows(1, shift=0.3)
    assert kernel_distance(x, y) == pytest.approx(by_loops(x, y), rel=EXACT)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)  # pieces that do not divide the whole
    assert kernel_distance(x, y) == pytest.approx(by_loops(x, y), rel=EXACT)


def test_agrees_with_torchmetrics() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = rows(0), rows(1, shift=0.3)
    assert kernel_distance(x, y) == pytest.approx(float(kid.poly_mmd(x, y)), rel=1e-9)


def test_is_unbiased() -> None:
    # Standard error of the mean of 300 draws, measured from the draws themselves.
    draws = np.array([kernel_distance(rows(2 * i, 12), rows(2 * i + 1, 12)) for i in range(300)])
    assert abs(draws.mean()) < 3 * draws.std() / np.sqrt(300)
    assert draws.min() < 0


def estimate(x: torch.Tensor, y: torch.Tensor, seeds: Clusters | None = None, scenes: Clusters | None = None) -> float:
    ones = torch.ones(len(x)).double()
    return kernel_statistic(x, y, seeds, scenes)(ones, ones)


def test_crops_of_one_scene_bias_the_plain_mean_and_not_the_clustered_one() -> None:
    scenes = Clusters.of(np.arange(48) // 4)
    plain, clustered = [], []
    for i in range(100):
        crops = rows(3 * i, 12).repeat_interleave(4, 0) + 0.1 * rows(3 * i + 1, 48)
        other = rows(3 * i + 2, 48) * np.sqrt(1.01)
        plain.append(kernel_distance(other, crops))
        clustered.append(estimate(other, crops, None, scenes))
    error = np.std(clustered) / 10
    assert abs(np.mean(clustered)) < 3 * error
    assert np.mean(plain) > 3 * error


def test_a_fixed_number_per_class_biases_the_plain_mean_and_not_the_stratified_one() -> None:
    label = np.arange(40) // 4
    centres = 2 * rows(0, 10)[label]
    strata = Clusters.of(range(40), label)
    plain, stratified = [], []
    for i in range(100):
        x, y = centres + rows(2 * i + 1, 40), centres + rows(2 * i + 2, 40)
        plain.append(kernel_distance(x, y))
        stratified.append(estimate(x, y, strata, strata))
    error = np.std(stratified) / 10
    assert abs(np.mean(stratified)) < 3 * error
    assert np.mean(plain) < -3 * error


def test_strata_by_loops() -> None:
    x, y = rows(0, 8), rows(1, 8, shift=0.4)
    label = [0, 0, 0, 1, 1, 1, 1, 1]
    within = 0.0
    for s, t in itertools.product((0, 1), repeat=2):
        pairs = [(i, j) for i in range(8) for j in range(8) if i != j and (label[i], label[j]) == (s, t)]
        share = label.count(s) * label.count(t) / 64
        within += share * float(np.mean([kernel(y[i], y[j]) for i, j in pairs]))
    plain = [kernel(y[i], y[j]) for i in range(8) for j in range(8) if i != j]
    wanted = by_loops(x, y) - float(np.mean(plain)) + within
    names = Clusters.of([5, 1, 7, 2, 0, 3, 9, 4], label)
    assert estimate(x, y, None, names) == pytest.approx(wanted, rel=EXACT)


def test_blocks() -> None:
    x, y = rows(0, 40), rows(1, 40, shift=0.5)
    assert kernel_distance_blocks(x, y, size=40, blocks=2)[0] == pytest.approx(kernel_distance(x, y), rel=EXACT)
    mean, deviation = kernel_distance_blocks(x, y, size=20, blocks=50, seed=3)
    assert (mean, deviation) == kernel_distance_blocks(x, y, size=20, blocks=50, seed=3)
    assert (mean, deviation) != kernel_distance_blocks(x, y, size=20, blocks=50, seed=4)
    assert abs(mean - kernel_distance(x, y)) < 4 * deviation / np.sqrt(50)
    with pytest.raises(ConfigError, match="subsets of 41 rows from 40"):
        kernel_distance_blocks(x, y, size=41)


@given(st.integers(0, 10_000), st.integers(1, 6))
@QUICK
def test_laws(seed: int, parts: int) -> None:
    x, y = rows(seed), rows(seed + 1, shift=1)
    found = kernel_distance(x, y)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(24))
    turn = torch.from_numpy(np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))[0])
    assert kernel_distance(y, x) == pytest.approx(found, rel=1e-9, abs=1e-9)
    assert kernel_distance(x[order], y) == pytest.approx(found, rel=1e-9, abs=1e-9)
    assert kernel_distance(x @ turn, y @ turn) == pytest.approx(found, rel=1e-9, abs=1e-9)
    whole, left, right = KernelDistance(), KernelDistance(), KernelDistance()
    for part, (some, real) in enumerate(zip(x.chunk(parts), y.chunk(parts), strict=True)):
        for measure in (whole, left if part % 2 else right):
            measure.update(some.float(), real=False)
            measure.update(real.float(), real=True)
    left.merge(right)
    single = kernel_distance(x.float(), y.float())
    assert whole.compute() == pytest.approx(single, rel=1e-9, abs=1e-9)
    assert left.compute() == pytest.approx(single, rel=1e-9, abs=1e-9)


def test_the_class_in_blocks() -> None:
    x, y = rows(0), rows(1)
    measure = KernelDistance(size=10, blocks=5, seed=1)
    measure.update(x, real=False)
    measure.update(y, real=True)
    assert measure.compute() == kernel_distance_blocks(x, y, 10, 5, 1)[0]
    with pytest.raises(ConfigError, match=r"KernelDistance\(size=10.*cannot be merged with KernelDistance\(size=None"):
        measure.merge(KernelDistance())


def test_the_statistic_is_the_distance_and_leaves_copies_out() -> None:
    x, y = rows(0, 12), rows(1, 12, shift=0.4)
    scenes = torch.tensor([7, 7, 3, 3, 3, 9, 1, 1, 2, 4, 4, 5])
    statistic = kernel_statistic(x, y, scenes=Clusters.of(scenes))
    ones = torch.ones(12).double()
    assert estimate(x, y) == pytest.approx(kernel_distance(x, y), rel=EXACT)
    assert statistic(ones, ones) == pytest.approx(by_loops(x, y, b=scenes.tolist()), rel=EXACT)
    drawn = torch.tensor([0, 2, 1, 1, 1, 3, 0, 1, 1, 0, 1, 1]).double()
    weight = {7: 2, 3: 0, 9: 1, 1: 1, 2: 3, 4: 0, 5: 1}
    real = torch.tensor([weight[int(s)] for s in scenes]).double()
    copies, crops = drawn.long(), real.long()
    wanted = by_loops(
        x.repeat_interleave(copies, 0),
        y.repeat_interleave(crops, 0),
        torch.arange(12).repeat_interleave(copies).tolist(),
        scenes.repeat_interleave(crops).tolist(),
    )
    assert statistic(drawn, real) == pytest.approx(wanted, rel=EXACT)


def test_a_stratum_left_with_one_cluster_keeps_its_mean() -> None:
    x, y = rows(0, 6), rows(1, 6)
    statistic = kernel_statistic(x, y, None, Clusters.of(range(6), [0, 0, 0, 1, 1, 1]))
    ones = torch.ones(6).double()
    found = statistic(ones, torch.tensor([0, 3, 0, 1, 1, 1]).double())
    drawn = y[[1, 1, 1, 3, 4, 5]]
    within = [[kernel(u, v) for i, u in enumerate(part) for j, v in enumerate(part) if i != j] for part in y.split(3)]
    between = [kernel(u, v) for u in drawn[:3] for v in drawn[3:]]
    wanted = by_loops(x, drawn, b=[1, 1, 1, 3, 4, 5]) - inner_of(drawn, [1, 1, 1, 3, 4, 5])
    wanted += (np.mean(within[0]) + np.mean(within[1]) + 2 * np.mean(between)) / 4
    assert found == pytest.approx(float(wanted), rel=EXACT)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="got 24 in the sample and 12 in the reference"):
        kernel_distance(rows(0), rows(1, 12))
    with pytest.raises(ConfigError, match="all rows are of one cluster"):
        kernel_statistic(rows(0), rows(1), Clusters.of([0] * 24))
    with pytest.raises(ConfigError, match="stratum 'b' is of one cluster"):
        kernel_statistic(rows(0), rows(1), Clusters.of(range(24), ["a"] * 23 + ["b"]))
    statistic = kernel_statistic(rows(0), rows(1), Clusters.of(np.arange(24) // 2))
    with pytest.raises(ConfigError, match="rows of one cluster were given different weights"):
        statistic(torch.arange(24).double(), torch.ones(24).double())
    with pytest.raises(ConfigError, match="3 cluster ids were given for 24 rows"):
        kernel_statistic(rows(0), rows(1), Clusters.of(range(3)))


def test_the_kernel() -> None:
    x = torch.tensor([[1.0, 2.0]]).double()
    assert polynomial_kernel(x, 2 * x).item() == 6.0**3

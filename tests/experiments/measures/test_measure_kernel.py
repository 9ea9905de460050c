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


def by_loops(x: torch.Tensor, y: torch.Tensor, a: list[int] | None = None, b: list[int] | None = None) -> float:
    """Every pair by itself; pairs within a group left out."""
    a, b = a or list(range(len(x))), b or list(range(len(y)))

    def k(u: torch.Tensor, v: torch.Tensor) -> float:
        return (float(u @ v) / len(u) + 1) ** 3

    def inner(z: torch.Tensor, groups: list[int]) -> float:
        pairs = [(i, j) for i, j in itertools.product(range(len(z)), repeat=2) if groups[i] != groups[j]]
        return float(np.mean([k(z[i], z[j]) for i, j in pairs]))

    return inner(x, a) + inner(y, b) - 2 * float(np.mean([k(u, v) for u in x for v in y]))


def test_agrees_with_double_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows(0), rows(1, shift=0.3)
    assert kernel_distance(x, y) == pytest.approx(by_loops(x, y), rel=EXACT)
    groups = [i // 3 for i in range(24)]
    found = kernel_distance(x, y, reference_groups=torch.tensor(groups))
    assert found == pytest.approx(by_loops(x, y, b=groups), rel=EXACT)
    assert found != pytest.approx(by_loops(x, y), rel=1e-3)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)  # pieces that do not divide the whole
    assert kernel_distance(x, y, reference_groups=torch.tensor(groups)) == pytest.approx(found, rel=EXACT)


def test_agrees_with_torchmetrics() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = rows(0), rows(1, shift=0.3)
    assert kernel_distance(x, y) == pytest.approx(float(kid.poly_mmd(x, y)), rel=1e-9)


def test_is_unbiased() -> None:
    # Standard error of the mean of 300 draws, measured from the draws themselves.
    draws = np.array([kernel_distance(rows(2 * i, 12), rows(2 * i + 1, 12)) for i in range(300)])
    assert abs(draws.mean()) < 3 * draws.std() / np.sqrt(300)
    assert draws.min() < 0


def test_crops_of_one_scene_bias_the_plain_mean_and_not_the_grouped_one() -> None:
    scenes = torch.arange(12).repeat_interleave(4)
    plain, grouped = [], []
    for i in range(100):
        crops = rows(3 * i, 12).repeat_interleave(4, 0) + 0.1 * rows(3 * i + 1, 48)
        other = rows(3 * i + 2, 48) * np.sqrt(1.01)
        plain.append(kernel_distance(other, crops))
        grouped.append(kernel_distance(other, crops, reference_groups=scenes))
    error = np.std(grouped) / 10
    assert abs(np.mean(grouped)) < 3 * error
    assert np.mean(plain) > 3 * error


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
    statistic = kernel_statistic(x, y, reference_groups=scenes)
    ones = torch.ones(12).double()
    assert statistic(ones, ones) == pytest.approx(kernel_distance(x, y, reference_groups=scenes), rel=EXACT)
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


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="got 24 in the sample and 12 in the reference"):
        kernel_distance(rows(0), rows(1, 12))
    with pytest.raises(ConfigError, match="all 24 rows are of one group"):
        kernel_distance(rows(0), rows(1), sample_groups=torch.zeros(24, dtype=torch.long))
    statistic = kernel_statistic(rows(0), rows(1), sample_groups=torch.arange(24) // 2)
    with pytest.raises(ConfigError, match="rows of one group were given different weights"):
        statistic(torch.arange(24).double(), torch.ones(24).double())
    with pytest.raises(ConfigError, match="3 group ids were given for 24 rows"):
        kernel_statistic(rows(0), rows(1), sample_groups=torch.arange(3))


def test_the_kernel() -> None:
    x = torch.tensor([[1.0, 2.0]]).double()
    assert polynomial_kernel(x, 2 * x).item() == 6.0**3

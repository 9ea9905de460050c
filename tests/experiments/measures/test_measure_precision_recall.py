"""Precision and recall against loops, and in the right direction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hguide.errors import ConfigError
from hguide.experiments.measures.precision_recall import (
    PrecisionRecall,
    precision_recall,
    precision_recall_statistic,
)

QUICK = settings(derandomize=True, deadline=None, max_examples=25)


def rows(seed: int, count: int = 60, dimensions: int = 3, shift: float = 0.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, 1, (count, dimensions)))


def share_inside(points: np.ndarray, members: np.ndarray, k: int) -> float:
    """Share of points in the manifold of the members, by loops."""
    radii = [
        sorted(np.linalg.norm(m - o) for j, o in enumerate(members) if j != i)[k - 1] for i, m in enumerate(members)
    ]
    inside = [any(np.linalg.norm(p - m) <= r for m, r in zip(members, radii, strict=True)) for p in points]
    return float(np.mean(inside))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_agrees_with_loops(k: int) -> None:
    x, y = rows(0, shift=-0.5), rows(1, shift=0.7)
    found = precision_recall(x, y, k)
    assert found.precision == share_inside(x.numpy(), y.numpy(), k)
    assert found.recall == share_inside(y.numpy(), x.numpy(), k)
    assert 0 < found.precision < 1
    assert found.precision != found.recall


def test_direction() -> None:
    # Two real modes, one of them generated: every generated point is real enough, half the real ones are missed.
    random = np.random.default_rng(0)
    real = np.concatenate([random.normal(-10, 1, (100, 4)), random.normal(10, 1, (100, 4))])
    inside = real[:100].repeat(2, 0) + random.normal(0, 1e-3, (200, 4))
    found = precision_recall(torch.from_numpy(inside), torch.from_numpy(real))
    assert found.precision == 1
    assert found.recall <= 0.5
    noisy = precision_recall(torch.from_numpy(real + random.normal(0, 5, real.shape)), torch.from_numpy(real))
    assert noisy.precision < 0.5 < noisy.recall


def test_the_set_itself() -> None:
    assert precision_recall(rows(0), rows(0)) == (1, 1)


def test_near_neighbours_far_from_the_origin() -> None:
    x, y = rows(0), rows(1, shift=0.7)
    assert precision_recall(x + 1e6, y + 1e6) == precision_recall(x, y)


@given(st.integers(0, 10_000), st.integers(1, 5))
@QUICK
def test_laws(seed: int, parts: int) -> None:
    x, y = rows(seed, 30), rows(seed + 1, 30, shift=0.5)
    found = precision_recall(x, y)
    assert precision_recall(y, x) == (found.recall, found.precision)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(30))
    assert precision_recall(x[order], y.flip(0)) == found
    assert precision_recall(4 * x - 1, 4 * y - 1) == found
    whole, left, right = PrecisionRecall(), PrecisionRecall(), PrecisionRecall()
    for part, (some, real) in enumerate(zip(x.chunk(parts), y.chunk(parts), strict=True)):
        for measure in (whole, left if part % 2 else right):
            measure.update(some, real=False)
            measure.update(real, real=True)
    left.merge(right)
    assert whole.compute() == left.compute() == found


@pytest.mark.parametrize("which", ["precision", "recall"])
def test_statistic_counts_points_and_takes_the_manifold_of_those_present(which: str) -> None:
    x, y = rows(0, 40), rows(1, 40, shift=0.4)
    statistic = precision_recall_statistic(x, y, which)  # type: ignore[arg-type]
    ones = torch.ones(40).double()
    assert statistic(ones, ones) == getattr(precision_recall(x, y), which)
    random = np.random.default_rng(2)
    a, b = (torch.from_numpy(random.integers(0, 3, 40)).double() for _ in range(2))
    points, weights, members = (x, a, y[b > 0]) if which == "precision" else (y, b, x[a > 0])
    repeated = points.repeat_interleave(weights.long(), 0)
    assert statistic(a, b) == pytest.approx(share_inside(repeated.numpy(), members.numpy(), 3), rel=1e-12)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="got 30 in the sample and 60 in the reference"):
        precision_recall(rows(0, 30), rows(1))
    with pytest.raises(ConfigError, match="at least 4 rows.*got 3"):
        precision_recall(rows(0, 3), rows(1, 3))
    with pytest.raises(ConfigError, match="neighbours is at least 1, got 0"):
        precision_recall(rows(0), rows(1), 0)
    with pytest.raises(ConfigError, match="neighbours=5.*cannot be merged"):
        PrecisionRecall(5).merge(PrecisionRecall())

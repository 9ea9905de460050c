"""IGG's diagnostics against scipy, their limits and invariances, and the limits of IGG's rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy
from torch import Tensor

from hguide.errors import ConfigError, ShapeError
from hguide.theory.dynamics import dispersion, divergence, evenness, mean_over_steps, peak_distribution, regrid
from hguide.theory.dynamics_limits import (
    distance_from_cfg,
    distance_from_mean,
    evenness_under_shift,
    peaked_signal,
    random_signal,
    scaling_gap,
)


def signal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", [(1, 2), (3, 5), (4, 4)])
def test_against_scipy(grid: tuple[int, int]) -> None:
    n, other = signal(3, *grid, 6), signal(3, *grid, 6, seed=1)
    found_even, found_apart = evenness(n), divergence(n, other)
    for sample in range(3):
        p, q = (np.clip(each[sample].numpy().max(-1).ravel(), 0, None).astype(float) for each in (n, other))
        assert float(found_even[sample]) == pytest.approx(entropy(p) / np.log(p.size), abs=1e-12)
        assert float(found_apart[sample]) == pytest.approx(jensenshannon(p, q, base=2) ** 2, abs=1e-12)
        peaks = n[sample].numpy().max(-1).astype(float)
        assert float(dispersion(n)[sample]) == pytest.approx(peaks.var(ddof=1) / peaks.mean(), rel=1e-6)


def test_limits() -> None:
    one = torch.zeros(1, 3, 4, 2)
    one[0, 2, 1, 1] = 3.0
    even = torch.full((1, 3, 4, 2), 0.3)
    assert float(evenness(one)) == 0.0
    assert float(evenness(even)) == pytest.approx(1.0)
    assert float(divergence(one, one)) == 0.0
    assert float(divergence(one, one.flip(1, 2))) == pytest.approx(1.0)
    assert float(evenness(peaked_signal(8, 0.0))) == pytest.approx(1.0)
    assert float(evenness(peaked_signal(8, 1e4))) == pytest.approx(0.0, abs=1e-6)


def test_undefined_values_are_nan() -> None:
    assert torch.isnan(evenness(torch.ones(2, 1, 1, 3))).all()
    assert torch.isnan(dispersion(torch.ones(2, 1, 1, 3))).all()
    mixed = torch.cat([torch.ones(1, 2, 2, 3), -torch.ones(1, 2, 2, 3)])
    assert torch.isnan(evenness(mixed)).tolist() == [False, True]
    assert torch.isnan(divergence(mixed, torch.ones(2, 3, 3, 3))).tolist() == [False, True]


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.floats(1e-3, 1e3), st.integers(0, 2**31))
def test_invariances(factor: float, seed: int) -> None:
    n, other = random_signal(4, 5, seed=seed), random_signal(3, 5, seed=seed + 1)
    torch.testing.assert_close(evenness(factor * n), evenness(n))
    torch.testing.assert_close(divergence(factor * n, other), divergence(n, other))
    torch.testing.assert_close(dispersion(factor * n), factor * dispersion(n))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
    moved = n.flatten(1, 2)[:, order].unflatten(1, (4, 4)).flip(-1)
    torch.testing.assert_close(evenness(moved), evenness(n))
    assert scaling_gap(factor) < 1e-9


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_divergence_is_symmetric_and_its_root_a_metric(seed: int) -> None:
    a, b, c = (random_signal(3, 4, seed=seed + i) for i in range(3))
    roots = [float(divergence(*pair)) ** 0.5 for pair in ((a, b), (b, c), (a, c))]
    assert float(divergence(b, a)) == pytest.approx(roots[0] ** 2, abs=1e-12)
    assert 0.0 <= roots[2] <= roots[0] + roots[1] + 1e-12


@pytest.mark.parametrize(("source", "target"), [((2, 2), (3, 3)), ((3, 5), (4, 7)), ((6, 6), (4, 3)), ((1, 1), (2, 3))])
def test_regrid_keeps_shares_in_place(source: tuple[int, int], target: tuple[int, int]) -> None:
    shares = peak_distribution(signal(2, *source, 8))
    moved = regrid(shares, target)
    torch.testing.assert_close(moved.sum((1, 2)), torch.ones(2, dtype=torch.float64))
    # Both sides cut so finely that every cell of either is whole numbers of small ones.
    fine = (source[0] * target[0], source[1] * target[1])
    blocks = shares.repeat_interleave(target[0], 1).repeat_interleave(target[1], 2) / (target[0] * target[1])
    wanted = blocks.reshape(2, target[0], fine[0] // target[0], target[1], fine[1] // target[1]).sum((2, 4))
    torch.testing.assert_close(moved, wanted)


def test_an_even_map_stays_even_on_another_grid() -> None:
    assert float(divergence(torch.ones(1, 5, 5, 2), torch.ones(1, 3, 4, 2))) == pytest.approx(0.0, abs=1e-12)


def test_a_constant_makes_everything_even() -> None:
    values = [evenness_under_shift(constant) for constant in (0.0, 1.0, 10.0, 1e4)]
    assert values == sorted(values)
    assert values[0] < 0.8
    assert values[-1] == pytest.approx(1.0, abs=1e-6)


def test_the_mean_over_steps() -> None:
    values = [torch.tensor([torch.nan, torch.nan]), torch.tensor([1.0, torch.nan]), torch.tensor([3.0, torch.nan])]
    found = mean_over_steps(values, [1, 4, 12])
    assert float(found[0]) == pytest.approx((4 * 1 + 12 * 3) / 16)
    assert torch.isnan(found[1])
    with pytest.raises(ConfigError, match="one number of tokens per step, got 3 steps and 2"):
        mean_over_steps(values, [1, 4])


def test_signals_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match="same samples and channels"):
        divergence(torch.ones(2, 2, 2, 3), torch.ones(1, 2, 2, 3))


def test_limits_of_igg() -> None:
    assert distance_from_cfg(2.0) < 1e-12
    assert distance_from_cfg(0.3) == pytest.approx(0.045, abs=0.01)
    # Never quite: the weights of other tokens are about exp(-sqrt(v) spread^2).
    assert 1e-6 < distance_from_cfg(0.4) < 2e-3
    assert distance_from_cfg(0.01) > 0.9
    small = [distance_from_mean(spread) for spread in (0.02, 0.01, 0.005)]
    # The distance falls with the square of the size.
    assert small[0] / small[1] == pytest.approx(4.0, rel=0.1)
    assert small[1] / small[2] == pytest.approx(4.0, rel=0.1)

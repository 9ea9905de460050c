"""Estimators of mutual information on distributions whose answer is known, the control, and the jackknife."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student

from hguide.errors import ConfigError
from hguide.theory.jackknife import leave_out
from hguide.theory.mutual_information import gaussian, ksg, miller_madow, plug_in, shuffled

JOINT = np.array([[0.30, 0.05, 0.05], [0.05, 0.25, 0.30]])


def exact(joint: np.ndarray) -> float:
    independent = np.outer(joint.sum(1), joint.sum(0))
    return float((joint * np.log(joint / independent)).sum())


def drawn(joint: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    cells = np.random.default_rng(seed).choice(joint.size, size=count, p=joint.ravel())
    return np.unravel_index(cells, joint.shape)  # type: ignore[return-value]


def test_plug_in_is_exact_on_the_observed_frequencies() -> None:
    counts = (JOINT * 100).round().astype(int)
    x, y = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    assert plug_in(x, y) == pytest.approx(exact(JOINT), abs=1e-12)
    assert plug_in(x, x) == pytest.approx(-(JOINT.sum(1) * np.log(JOINT.sum(1))).sum())
    # Names of classes do not matter.
    assert plug_in(7 - 3 * x, y) == pytest.approx(plug_in(x, y))


@pytest.mark.parametrize("count", [100, 400])
def test_the_correction_removes_the_first_order_of_the_bias(count: int) -> None:
    pairs = [drawn(JOINT, count, seed) for seed in range(400)]
    plain, corrected = (np.array([f(*pair) for pair in pairs]) for f in (plug_in, miller_madow))
    # (m_xy - m_x - m_y + 1) / 2n is what the plug-in estimate has too much.
    bias = (6 - 2 - 3 + 1) / (2 * count)
    noise = 3 * plain.std() / math.sqrt(len(pairs))
    assert plain.mean() - exact(JOINT) == pytest.approx(bias, abs=noise)
    assert corrected.mean() == pytest.approx(exact(JOINT), abs=noise)
    assert bias > 2 * abs(corrected.mean() - exact(JOINT))


def test_corrected_estimates_of_independent_classes_are_about_zero() -> None:
    draw = np.random.default_rng(0)
    found = [miller_madow(*draw.integers(0, 5, (2, 300))) for _ in range(200)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(200)
    assert np.mean([plug_in(*draw.integers(0, 5, (2, 300))) for _ in range(50)]) > 0.02


@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.8, 0.95])
def test_neighbours_on_gaussians(correlation: float) -> None:
    draw = np.random.default_rng(3)
    found = []
    for _ in range(20):
        x, noise = draw.standard_normal((2, 500, 1))
        found.append(ksg(x, correlation * x + math.sqrt(1 - correlation**2) * noise))
    # Unbiased to a hundredth of a nat; the rest is the spread of 20 estimates.
    allowed = 0.01 + 3.5 * np.std(found) / math.sqrt(20)
    assert np.mean(found) == pytest.approx(gaussian(correlation), abs=allowed)
    assert allowed < 0.05


def test_neighbours_in_two_dimensions() -> None:
    draw = np.random.default_rng(4)
    x = draw.standard_normal((3000, 2))
    y = x + draw.standard_normal((3000, 2))
    # Two independent pairs of correlation 1/sqrt 2.
    assert ksg(x, y) == pytest.approx(2 * gaussian(math.sqrt(0.5)), abs=0.06)
    # Each side in other units and with its axes mixed, the information is the same.
    mixed = ksg(x * 1e3, y @ np.array([[1.0, 0.5], [0.0, 1.0]]))
    assert mixed == pytest.approx(2 * gaussian(math.sqrt(0.5)), abs=0.08)


def test_neighbours_against_a_count_by_hand() -> None:
    x, y = np.random.default_rng(5).standard_normal((2, 40, 1))
    dx, dy = (np.abs(each - each.T) / each.std() for each in (x, y))
    reach = np.sort(np.maximum(dx, dy), axis=1)[:, 3]
    from scipy.special import digamma

    inside = [(part < reach[:, None]).sum(1) - 1 for part in (dx, dy)]
    wanted = digamma(3) + digamma(40) - sum(digamma(each + 1).mean() for each in inside)
    assert ksg(x, y, neighbours=3) == pytest.approx(float(wanted), abs=1e-9)


def test_repeated_values_do_not_break_the_neighbours() -> None:
    draw = np.random.default_rng(6)
    classes = draw.integers(0, 3, (1500, 1))
    y = classes * 20.0 + draw.standard_normal((1500, 1))
    # Three classes that y tells apart: ln 3.
    assert ksg(classes.astype(float), y) == pytest.approx(math.log(3), abs=0.05)


def test_the_control_breaks_pairs_and_keeps_places() -> None:
    draw = np.random.default_rng(7)
    groups = np.repeat(np.arange(60), 4)
    shared = draw.integers(0, 4, 60).repeat(4)
    broken = shuffled(miller_madow, shared, shared, groups, rounds=40)
    assert plug_in(shared, shared) > 1.0
    assert abs(broken.mean()) < 0.1
    # What both owe to the place survives.
    place = np.tile(np.arange(4), 60)
    np.testing.assert_allclose(shuffled(plug_in, place, place, groups, rounds=3), math.log(4))
    # The samples of a picture need not lie together.
    mixed = draw.permutation(240)
    assert abs(shuffled(miller_madow, shared[mixed], shared[mixed], groups[mixed], rounds=40).mean()) < 0.1


def test_no_group_is_paired_with_itself() -> None:
    groups = np.arange(7).repeat(3)
    same = shuffled(lambda x, y: float((x == y).mean()), groups, groups, groups, rounds=50)
    assert same.max() == 0.0


def test_the_jackknife_of_a_mean_is_the_textbook_interval() -> None:
    values = np.random.default_rng(8).standard_normal(50)
    found = leave_out(lambda chosen: float(values[chosen].mean()), 50, groups=50).interval()
    width = student.ppf(0.975, 49) * values.std(ddof=1) / math.sqrt(50)
    assert found.estimate == pytest.approx(values.mean())
    assert found.high - found.estimate == pytest.approx(width)
    paired = leave_out(lambda chosen: float(values[chosen].mean()), 50)
    assert (paired - paired).interval().low == 0.0
    assert not (paired - paired).interval().excludes_zero


def test_intervals_cover() -> None:
    inside = 0
    for seed in range(150):
        values = np.random.default_rng(seed).standard_normal(60)
        found = leave_out(lambda chosen, v=values: float(v[chosen].mean()), 60).interval()
        inside += found.low <= 0.0 <= found.high
    assert 0.90 <= inside / 150 <= 0.99


def test_what_cannot_be_estimated() -> None:
    with pytest.raises(ConfigError, match="needs pairs, got 3 and 2"):
        plug_in(np.arange(3), np.arange(2))
    with pytest.raises(ConfigError, match="3 neighbours need more than 3 samples, got 3"):
        ksg(np.zeros((3, 1)), np.zeros((3, 1)))
    with pytest.raises(ConfigError, match="two groups or more of one size"):
        shuffled(plug_in, np.arange(3), np.arange(3), np.array([0, 0, 1]))
    with pytest.raises(ConfigError, match="2 groups or more and a picture in each, got 10 and 9"):
        leave_out(lambda chosen: 0.0, 9)

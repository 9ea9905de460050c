"""Bootstrap intervals: coverage, clusters, pairing, determinism; and the floor of a reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hguide.errors import ConfigError, NumericalError
from hguide.experiments.measures.bootstrap import (
    Statistic,
    bootstrap,
    bootstrap_difference,
    interval_of,
    replicates_of,
)
from hguide.experiments.measures.clusters import Clusters
from hguide.experiments.measures.floor import even_rows, train_test_floor
from hguide.experiments.measures.frechet_distance import frechet_statistic
from hguide.experiments.measures.kernel_statistic import kernel_statistic

QUICK = settings(derandomize=True, deadline=None, max_examples=20)
# 120 trials at 90 %: binomial deviation 2.7 %; the percentile interval of 40 draws falls short by about 1.5 %.
COVERAGE = (0.81, 0.96)


def mean_of(values: np.ndarray, side: int = 0) -> Statistic:
    """Weighted mean of the sample's (0) or the reference's (1) values."""
    kept = torch.from_numpy(values)

    def statistic(*weights: torch.Tensor) -> float:
        return float(weights[side] @ kept / weights[side].sum())

    return statistic


def clustered(random: np.random.Generator, clusters: int = 40, each: int = 5) -> np.ndarray:
    """Values that share most of their spread within a cluster; their mean is 0."""
    return (random.normal(size=(clusters, 1)) + 0.3 * random.normal(size=(clusters, each))).ravel()


@pytest.mark.parametrize("side", ["seeds", "scenes"])
def test_coverage_of_a_known_mean(side: str) -> None:
    random = np.random.default_rng(5)
    whole = Clusters.of(np.arange(200) // 5)
    single = Clusters.of(np.arange(200))
    hit, naive = 0, 0
    for trial in range(120):
        values = clustered(random)
        options = {"replicates": 150, "level": 0.9, "seed": trial}
        if side == "seeds":
            good = bootstrap(mean_of(values), whole, **options)
            poor = bootstrap(mean_of(values), single, **options)
        else:
            good = bootstrap(mean_of(values, 1), Clusters.of([0]), whole, **options)
            poor = bootstrap(mean_of(values, 1), Clusters.of([0]), single, **options)
        hit += good.low <= 0 <= good.high
        naive += poor.low <= 0 <= poor.high
    assert COVERAGE[0] <= hit / 120 <= COVERAGE[1]
    assert naive / 120 < 0.7  # rows as if each were its own scene promise too much


def test_both_sides_are_resampled() -> None:
    random = np.random.default_rng(0)
    x, y = torch.from_numpy(random.normal(size=100)), torch.from_numpy(random.normal(size=400))
    seeds, scenes = Clusters.of(range(100)), Clusters.of(np.arange(400) // 4)

    def difference(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(a @ x / a.sum() - b @ y / b.sum())

    found = replicates_of(difference, seeds, scenes, replicates=1500)
    scene_means = y.reshape(100, 4).mean(1)
    wanted = np.sqrt(float(x.var() + scene_means.var()) / 100)
    assert found.std() == pytest.approx(wanted, rel=0.08)
    interval = bootstrap(difference, seeds, scenes, replicates=50)
    assert (interval.n_seeds, interval.n_scenes, interval.replicates) == (100, 100, 50)


def test_equal_seeds_give_equal_intervals_and_scenes_are_shared_between_cells() -> None:
    values = np.random.default_rng(0).normal(size=30)
    seeds = Clusters.of(range(30))
    first = bootstrap(mean_of(values), seeds, replicates=60, seed=4)
    assert first == bootstrap(mean_of(values), seeds, replicates=60, seed=4)
    assert first != bootstrap(mean_of(values), seeds, replicates=60, seed=5)
    scenes = Clusters.of(range(30))
    few = replicates_of(mean_of(values, 1), Clusters.of(range(7)), scenes, replicates=20)
    many = replicates_of(mean_of(values, 1), Clusters.of(range(99)), scenes, replicates=20)
    np.testing.assert_array_equal(few, many)


@given(st.integers(0, 1000))
@QUICK
def test_order_of_rows_does_not_matter(seed: int) -> None:
    random = np.random.default_rng(seed)
    values, ids = random.normal(size=24), random.integers(0, 9, 24)
    order = random.permutation(24)
    one = replicates_of(mean_of(values), Clusters.of(ids), replicates=10)
    other = replicates_of(mean_of(values[order]), Clusters.of(torch.from_numpy(ids[order])), replicates=10)
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_rows_of_a_cluster_are_drawn_together_and_strata_keep_their_size() -> None:
    ids, strata = np.arange(60) // 3, np.arange(60) // 15
    clusters = Clusters.of(ids, strata)
    assert clusters.count == 20
    for trial in range(10):
        weights = clusters.draw(np.random.default_rng(trial)).numpy()
        assert all(len(set(weights[ids == i])) == 1 for i in range(20))
        assert [weights[strata == s].sum() for s in range(4)] == [15] * 4
        assert weights.max() > 1


def test_pairing_makes_small_differences_visible() -> None:
    random = np.random.default_rng(1)
    common = random.normal(size=80)
    a, b = common + 0.05 * random.normal(size=80) + 0.1, common
    seeds = Clusters.of(range(80))
    order = random.permutation(80)
    paired = bootstrap_difference(mean_of(a), mean_of(b[order]), seeds, Clusters.of(order), replicates=300)
    assert paired.estimate == pytest.approx(a.mean() - b.mean(), rel=1e-12)
    assert paired.excludes_zero
    assert paired.high - paired.low == pytest.approx(4 * (a - b).std() / np.sqrt(80), rel=0.2)
    alone = bootstrap(mean_of(a), seeds, replicates=300)
    assert alone.high - alone.low > 5 * (paired.high - paired.low)
    assert bootstrap_difference(mean_of(a), mean_of(a), seeds, seeds, replicates=20).excludes_zero is False


def test_the_kernel_statistic_is_not_shifted_by_resampling_and_the_frechet_one_is() -> None:
    random = np.random.default_rng(2)
    x = torch.from_numpy(random.normal(0.3, 1, (80, 6)))
    scene = np.arange(80) // 2
    y = torch.from_numpy(random.normal(size=(40, 6))[scene] + 0.2 * random.normal(size=(80, 6)))
    seeds, scenes = Clusters.of(range(80)), Clusters.of(scene)
    kernel = bootstrap(kernel_statistic(x, y, None, scenes), seeds, scenes, replicates=400)
    width = kernel.high - kernel.low
    assert abs(kernel.bias) < 0.1 * width
    frechet = bootstrap(frechet_statistic(x, y), seeds, scenes, replicates=400)
    centred = bootstrap(frechet_statistic(x, y), seeds, scenes, replicates=400, kind="centred")
    assert frechet.bias > 0.2 * (frechet.high - frechet.low)
    assert centred.low == pytest.approx(frechet.low - frechet.bias, rel=1e-12)
    assert centred.low < centred.estimate < centred.high


def test_resampling_within_classes_does_not_shift_the_kernel_statistic() -> None:
    random = np.random.default_rng(2)
    label = np.arange(60) // 6
    centres = 2 * random.normal(size=(10, 6))
    x, y = (torch.from_numpy(centres[label] + random.normal(size=(60, 6))) for _ in range(2))
    seeds, scenes = (Clusters.of(range(60), label) for _ in range(2))
    found = bootstrap(kernel_statistic(x, y, seeds, scenes), seeds, scenes, replicates=400)
    assert abs(found.bias) < 0.15 * (found.high - found.low)
    assert found.low < found.estimate < found.high
    plain = bootstrap(kernel_statistic(x, y), seeds, scenes, replicates=400)
    assert plain.bias < -0.3 * (plain.high - plain.low)


def test_percentiles() -> None:
    seeds = Clusters.of(range(3))
    found = interval_of(2.0, np.arange(101.0), seeds, level=0.8)
    assert (found.low, found.high, found.bias) == pytest.approx((10, 90, 48), rel=1e-12)
    assert str(found) == "2 [10, 90]"
    assert found.excludes_zero


def test_refusals() -> None:
    seeds, other = Clusters.of([1, 2, 3]), Clusters.of([1, 2, 4])
    values = mean_of(np.arange(3.0))
    with pytest.raises(ConfigError, match="same seeds in both, got 3 and 3: 2 seeds are in one only, such as 3, 4"):
        bootstrap_difference(values, values, seeds, other)
    with pytest.raises(ConfigError, match="at least two replicates, got 1"):
        bootstrap(values, seeds, replicates=1)
    with pytest.raises(ConfigError, match="level is between 0 and 1"):
        bootstrap(values, seeds, replicates=2, level=95)
    with pytest.raises(NumericalError, match="2 of 2 replicates are not finite: 3 seeds and 0 scenes"):
        bootstrap(lambda a, b: float("nan"), seeds, replicates=2)
    with pytest.raises(ConfigError, match="no rows"):
        Clusters.of([])
    with pytest.raises(ConfigError, match="rows of 5 lie in two strata, 'b' and 'a'"):
        Clusters.of([5, 5], ["a", "b"])
    with pytest.raises(ConfigError, match="2 rows, 1 strata"):
        Clusters.of([5, 5], ["a"])
    with pytest.raises(ConfigError, match="all integers or all strings, got .*float"):
        Clusters.of([0.5, 1.5])


def crops(seed: int, scenes: int, each: int, prefix: str) -> tuple[torch.Tensor, Clusters]:
    random = np.random.default_rng(seed)
    scene = np.arange(scenes * each) // each
    rows = random.normal(size=(scenes, 4))[scene] + 0.2 * random.normal(size=(scenes * each, 4))
    return torch.from_numpy(rows), Clusters.of([f"{prefix}{i}" for i in scene])


def test_floor_holds_zero_for_an_unbiased_measure() -> None:
    (train, train_scenes), (test, test_scenes) = crops(0, 60, 2, "train"), crops(1, 30, 4, "test")
    found = train_test_floor(
        kernel_statistic,
        train,
        test,
        train_scenes,
        test_scenes,
        50,
        replicates=200,
    )
    assert found.interval.low < 0 < found.interval.high
    assert (found.count, found.train_scenes, found.test_scenes) == (50, 50, 30)
    assert "50 crops of 50 train and 30 test scenes" in str(found)
    far = train_test_floor(
        kernel_statistic,
        train + 2,
        test,
        train_scenes,
        test_scenes,
        50,
        replicates=50,
    )
    assert far.interval.excludes_zero


def test_even_rows_take_every_scene_before_any_twice() -> None:
    clusters = Clusters.of(np.repeat(np.arange(10), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]))
    for count, most in ((7, 1), (10, 1), (19, 2), (55, 10)):
        chosen = even_rows(clusters, count, seed=3)
        times = np.bincount(clusters.groups[chosen], minlength=10)
        assert times.sum() == count == len(set(chosen.tolist()))
        assert times.max() == most
        assert (times > 0).sum() == min(count, 10)
    assert torch.equal(even_rows(clusters, 9, 1), even_rows(clusters, 9, 1))
    assert not torch.equal(even_rows(clusters, 9, 1), even_rows(clusters, 9, 2))


def test_floor_refusals() -> None:
    (train, train_scenes), (test, test_scenes) = crops(0, 6, 2, "train"), crops(1, 5, 2, "test")

    def build(x: torch.Tensor, y: torch.Tensor, a: Clusters, b: Clusters) -> Statistic:
        return frechet_statistic(x, y)

    with pytest.raises(ConfigError, match="11 crops needs as many of each side, got 12 train and 10 test"):
        train_test_floor(build, train, test, train_scenes, test_scenes, 11)
    with pytest.raises(ConfigError, match="6 scenes are on both sides, such as train0"):
        train_test_floor(build, train, train, train_scenes, train_scenes, 4)

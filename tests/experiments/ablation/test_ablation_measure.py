"""Measures of stored features: the same numbers as the measures by themselves, one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hguide.errors import ConfigError
from hguide.experiments.ablation.columns import COLUMNS
from hguide.experiments.ablation.draws import SAMPLE, SCENES, draws
from hguide.experiments.ablation.kernel_replicates import kernel_replicates
from hguide.experiments.ablation.measure import Sample, compared, measure, spectrum
from hguide.experiments.measures.bootstrap import bootstrap, bootstrap_difference, replicates_of
from hguide.experiments.measures.clusters import Clusters
from hguide.experiments.measures.frechet_distance import frechet_statistic
from hguide.experiments.measures.kernel_statistic import kernel_statistic
from hguide.experiments.measures.power_spectrum import spectrum_statistic
from hguide.experiments.reference import Crops

N, R = 24, 12


def crops(rows, seed: int = 1, shift: float = 0.0) -> Crops:
    scenes = torch.arange(N) // 2
    arrays = {"features": rows(seed, N, 5) + shift, "spatial": rows(seed + 1, N, 6), "squeezenet": rows(seed + 3, N, 4)}
    arrays["power"] = rows(seed + 2, N, 8).exp().double()
    return Crops(arrays, scenes, scenes % 3)


def sample(rows, seed: int, shift: float = 0.0) -> Sample:
    arrays = {**crops(rows, seed, shift).arrays, "logits": rows(seed + 5, N, 3)}
    return Sample(arrays, Clusters.of(range(N), [place % 3 for place in range(N)]), torch.arange(N) % 3)


@pytest.mark.parametrize(
    ("seed_strata", "scene_size", "scene_strata"), [(None, 1, None), (3, 2, 3), (12, 3, 4), (None, 4, 1)]
)
def test_kernel_replicates_are_those_of_the_statistic(rows, seed_strata, scene_size, scene_strata):
    x, y = rows(1, N, 5), rows(2, N, 5) + 0.3
    seeds = Clusters.of(range(N), None if seed_strata is None else [i % seed_strata for i in range(N)])
    ids = [i // scene_size for i in range(N)]
    scenes = Clusters.of(ids, None if scene_strata is None else [each % scene_strata for each in ids])
    wanted = replicates_of(kernel_statistic(x, y, seeds, scenes), seeds, scenes, replicates=R)
    found = kernel_replicates(x, y, seeds, scenes, draws(seeds, R, SAMPLE), draws(scenes, R, SCENES))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("key", COLUMNS)
def test_every_column_is_measured(key, rows, tmp_path):
    mine, real = sample(rows, 10, 0.5), crops(rows)
    first = measure(key, mine, real, replicates=R, folder=tmp_path)
    assert first.interval.low <= first.interval.high
    assert first.replicates.shape == (R,)
    again = measure(key, mine, real, replicates=R, folder=tmp_path)
    assert again.interval == first.interval
    assert (again.replicates == first.replicates).all()
    assert len(list(tmp_path.glob("*.npz"))) == 1
    measure(key, sample(rows, 11, 0.5), real, replicates=R, folder=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_stored_replicates_are_those_of_the_same_labels(rows, tmp_path):
    mine, real = sample(rows, 10), crops(rows)
    others = replace(mine, labels=(mine.labels + 1) % 3)
    found = [measure("accuracy", each, real, replicates=R, folder=tmp_path) for each in (mine, others)]
    wanted = [measure("accuracy", each, real, replicates=R) for each in (mine, others)]
    assert [each.interval for each in found] == [each.interval for each in wanted]
    assert found[0].interval != found[1].interval
    # Classes of the reference are strata of its scenes.
    coarse = replace(real, labels=real.labels // 2)
    stored = [measure("kd", mine, each, replicates=R, folder=tmp_path).replicates for each in (real, coarse)]
    assert (stored[0] != stored[1]).any()
    np.testing.assert_array_equal(stored[1], measure("kd", mine, coarse, replicates=R).replicates)


def test_intervals_are_those_of_the_bootstrap(rows):
    mine, real = sample(rows, 10), crops(rows)
    x, y = mine.arrays["features"], real.arrays["features"]
    scenes = real.clusters()
    assert scenes.strata is not None
    kernel = kernel_statistic(x, y, mine.clusters, scenes)
    wanted = bootstrap(kernel, mine.clusters, scenes, replicates=R)
    found = measure("kd", mine, real, replicates=R).interval
    assert (found.estimate, found.low, found.high) == pytest.approx((wanted.estimate, wanted.low, wanted.high))
    wanted = bootstrap(frechet_statistic(x, y), mine.clusters, scenes, replicates=R, kind="centred")
    assert measure("fd", mine, real, replicates=R).interval == wanted


def test_differences_are_paired(rows):
    one, other, real = sample(rows, 10, 0.5), sample(rows, 20), crops(rows)
    scenes, clusters = real.clusters(), one.clusters
    kernels = [kernel_statistic(s.arrays["features"], real.arrays["features"], clusters, scenes) for s in (one, other)]
    wanted = bootstrap_difference(*kernels, clusters, clusters, scenes, replicates=R)
    mine, theirs = (measure("kd", each, real, replicates=R) for each in (one, other))
    found = compared("kd", "a", mine, "b", theirs)
    assert (found.cell, found.against, found.measure) == ("a", "b", "kd")
    assert (found.estimate, found.low, found.high) == pytest.approx((wanted.estimate, wanted.low, wanted.high))
    assert found.excludes_zero == wanted.excludes_zero
    same = compared("kd", "a", mine, "b", mine)
    assert (same.estimate, same.low, same.high, same.excludes_zero) == (0.0, 0.0, 0.0, False)


def test_shares_stay_shares(rows):
    mine = sample(rows, 10)
    real = Crops(dict(mine.arrays), torch.arange(N))
    found = measure("precision", mine, real, replicates=R).estimate
    assert found.estimate == 1.0
    assert 0.0 <= found.low <= found.high <= 1.0


def test_spectrum_distance(rows):
    x, y = rows(1, N, 8).exp().double(), rows(2, N, 8).exp().double()
    statistic, ones = spectrum_statistic(x, y), torch.ones(N, dtype=torch.float64)
    wanted = np.abs(np.log(x.numpy().mean(0) / y.numpy().mean(0))).mean()
    assert statistic(ones, ones) == pytest.approx(wanted, rel=1e-12)
    assert spectrum_statistic(x, x)(ones, ones) == 0.0
    assert spectrum_statistic(x * np.e, x)(ones, ones) == pytest.approx(1.0)
    doubled = torch.tensor([2.0] + [1.0] * (N - 2) + [0.0], dtype=torch.float64)
    rows_twice = torch.cat([x[:1], x[:-1]])
    assert statistic(doubled, ones) == pytest.approx(spectrum_statistic(rows_twice, y)(ones, ones))
    real = Crops({"power": y}, torch.arange(N))
    curve = spectrum(Sample({"power": x}, Clusters.of(range(N)), None), real)
    assert curve.frequency == pytest.approx(np.arange(1, 9) / 16)
    assert curve.ratio == pytest.approx(x.numpy().mean(0) / y.numpy().mean(0))


def test_reference_crops_are_spread_over_classes_and_scenes(rows):
    real = crops(rows)
    few = real.spread(6)
    assert few.labels.bincount().tolist() == [2, 2, 2]
    assert few.scene_count == 6
    assert torch.equal(few.scenes, real.spread(6).scenes)
    asked = torch.tensor([0, 0, 0, 0, 2])
    assert real.spread(5, asked).labels.bincount(minlength=3).tolist() == [4, 0, 1]
    with pytest.raises(ConfigError, match="9 crops of class 0 are asked for, the reference has 8"):
        real.spread(9, torch.zeros(9, dtype=torch.long))
    unlabelled = Crops(real.arrays, real.scenes)
    assert unlabelled.spread(12).scene_count == 12
    with pytest.raises(ConfigError, match="25 crops are asked for, the reference has 24"):
        unlabelled.spread(25)

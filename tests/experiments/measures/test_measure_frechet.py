"""FD and sFD against closed forms, scipy's matrix root and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hguide.errors import ConfigError, NumericalError, ShapeError
from hguide.experiments.measures.frechet_distance import (
    FrechetDistance,
    frechet_distance,
    frechet_statistic,
    gaussian_distance,
)
from hguide.experiments.measures.moments import Moments
from hguide.experiments.measures.spatial_frechet_distance import SpatialFrechetDistance, spatial_features

EXACT = 1e-11  # float64, a few dozen dimensions
RANK = 1e-12  # where covariances have no full rank
QUICK = settings(derandomize=True, deadline=None, max_examples=25)


def rows(seed: int, count: int = 120, dimensions: int = 6) -> torch.Tensor:
    """Correlated rows off the origin."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(dimensions, dimensions))
    return torch.from_numpy(random.normal(size=(count, dimensions)) @ mixing + random.normal(size=dimensions))


def by_scipy(x: torch.Tensor, y: torch.Tensor) -> float:
    """The formula as papers print it."""
    a, b = x.numpy(), y.numpy()
    c, d = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(c @ d)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c) + np.trace(d) - 2 * np.trace(root).real)


@pytest.mark.parametrize("dimensions", [1, 2, 6, 48])
def test_agrees_with_the_matrix_root_of_scipy(dimensions: int) -> None:
    x, y = rows(0, 200, dimensions), rows(1, 200, dimensions)
    if dimensions == 1:  # numpy's cov gives a scalar there
        spread = (x.std() - y.std()) ** 2
        assert frechet_distance(x, y) == pytest.approx(float((x.mean() - y.mean()) ** 2 + spread), rel=EXACT)
        return
    assert frechet_distance(x, y) == pytest.approx(by_scipy(x, y), rel=1e-9)


def test_agrees_with_torchmetrics() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    x, y = rows(0), rows(1)
    theirs = fid._compute_fid(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert frechet_distance(x, y) == pytest.approx(float(theirs), rel=1e-9)


def test_closed_form_of_commuting_covariances() -> None:
    a, b = torch.tensor([4.0, 9.0, 0.25]).double(), torch.tensor([1.0, 16.0, 2.25]).double()
    turn = torch.linalg.qr(torch.arange(9.0).reshape(3, 3).double().cos())[0]
    shift = torch.tensor([1.0, -2.0, 0.5]).double()
    found = gaussian_distance(shift, turn @ a.diag() @ turn.T, 0 * shift, turn @ b.diag() @ turn.T)
    wanted = shift.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert found == pytest.approx(float(wanted), rel=EXACT)


@pytest.mark.parametrize("rank", [0, 1, 3, 7])
def test_covariances_without_full_rank(rank: int) -> None:
    # On subspaces spanned by the same orthonormal vectors the distance is that of the coordinates.
    random = np.random.default_rng(3)
    basis = torch.from_numpy(np.linalg.qr(random.normal(size=(40, 40)))[0])
    inner_x, inner_y = (torch.from_numpy(random.normal(size=(50, max(rank, 2)))) for _ in range(2))
    if rank < 2:
        inner_x, inner_y = inner_x * torch.tensor([rank, 0.0]), inner_y * torch.tensor([rank, 0.0])
    x, y = inner_x @ basis[: inner_x.shape[1]], inner_y @ basis[: inner_y.shape[1]]
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(inner_x, inner_y), abs=RANK)
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=EXACT)


def test_orthogonal_subspaces() -> None:
    # Nothing is common: the rounding of null eigenvalues, whose roots are 3e-9, must not stand in for it.
    basis = torch.from_numpy(np.linalg.qr(np.random.default_rng(3).normal(size=(40, 40)))[0])
    x, y = rows(0, 50, 7), rows(1, 50, 7)
    wanted = sum(float(z.mean(0).square().sum() + z.T.cov().trace()) for z in (x, y))
    assert frechet_distance(x @ basis[:7], y @ basis[7:14]) == pytest.approx(wanted, rel=RANK)


def test_fewer_rows_than_dimensions() -> None:
    x, y = rows(4, 10, 64), rows(5, 10, 64)
    found = frechet_distance(x, y)
    assert np.isfinite(found)
    # The root of the small Gram form: C1 C2 and the 10x10 product of centred rows share their eigenvalues.
    a, b = x - x.mean(0), y - y.mean(0)
    cross = np.linalg.svd((a @ b.T).numpy(), compute_uv=False).sum() / 9
    wanted = (x.mean(0) - y.mean(0)).square().sum() + (a.square().sum() + b.square().sum()) / 9 - 2 * cross
    assert found == pytest.approx(float(wanted), rel=1e-8)


def test_a_mean_far_off_costs_no_digits() -> None:
    x, y = rows(0), rows(1)
    assert frechet_distance(x + 1e6, y + 1e6) == pytest.approx(frechet_distance(x, y), rel=1e-7)


@given(st.integers(0, 10_000), st.integers(1, 5))
@QUICK
def test_laws(seed: int, parts: int) -> None:
    x, y = rows(seed), rows(seed + 1)
    found = frechet_distance(x, y)
    turn = torch.from_numpy(np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0])
    assert frechet_distance(y, x) == pytest.approx(found, rel=1e-9)
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(found, rel=1e-9)
    assert frechet_distance(x[torch.randperm(120)], y) == pytest.approx(found, rel=1e-9)
    assert frechet_distance(3 * x + 2, 3 * y + 2) == pytest.approx(9 * found, rel=1e-9)
    shifted = frechet_distance(x, x + 0.5)
    assert shifted == pytest.approx(6 * 0.25, rel=1e-9)
    whole, left, right = FrechetDistance(), FrechetDistance(), FrechetDistance()
    for part, (some, real) in enumerate(zip(x.chunk(parts), y.chunk(parts), strict=True)):
        side = left if part % 2 else right
        for measure in (whole, side):
            measure.update(some, real=False)
            measure.update(real, real=True)
    left.merge(right)
    assert whole.compute() == pytest.approx(found, rel=1e-9)
    assert left.compute() == pytest.approx(found, rel=1e-9)


def test_moments_of_parts_are_moments_of_the_whole() -> None:
    x = rows(7) + 1e5
    found = Moments().add(x[:1]).merge(Moments()).add(x[1:50]).merge(Moments.of(x[50:]))
    mean, covariance = found.gaussian()
    torch.testing.assert_close(mean, x.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(covariance, x.T.cov(), rtol=1e-9, atol=1e-9)


def test_sums_are_float64_whatever_comes_in() -> None:
    measure = FrechetDistance()
    measure.update(rows(0).float(), real=True)
    assert measure.reference.scatter is not None
    assert measure.reference.scatter.dtype == torch.float64


def test_weights_count_rows() -> None:
    x, y = rows(0, 20), rows(1, 20)
    weights = torch.tensor([0, 2, 1, 1, 1] * 4).double()
    repeated = x.repeat_interleave(weights.long(), 0)
    assert frechet_statistic(x, y)(weights, torch.ones(20).double()) == pytest.approx(
        frechet_distance(repeated, y), rel=1e-9
    )


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="equal counts, got 5 in the sample and 7 in the reference"):
        frechet_distance(rows(0, 5), rows(0, 7))
    with pytest.raises(ShapeError, match="6 and of 5 dimensions"):
        frechet_distance(rows(0), rows(0, 120, 5))
    with pytest.raises(NumericalError, match="1 of 120 feature rows"):
        frechet_distance(rows(0).index_fill(0, torch.tensor([3]), float("nan")), rows(1))
    measure = FrechetDistance()
    measure.update(rows(0, 4), real=True)
    with pytest.raises(ConfigError, match="got 0 in the sample and 4 in the reference"):
        measure.compute()
    measure.reset()
    with pytest.raises(ConfigError, match="at least 2 rows.*got 0"):
        measure.compute()
    with pytest.raises(ConfigError, match="cannot be merged"):
        SpatialFrechetDistance(channels=2).merge(SpatialFrechetDistance(channels=3))


def maps(seed: int, count: int = 200) -> torch.Tensor:
    """Feature maps whose left half is brighter."""
    random = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(1, -1, 8).view(1, 1, 1, 8)
    return torch.randn(count, 6, 8, 8, generator=random) * (1.5 + ramp) + ramp


def test_spatial_features_are_cell_means_of_the_first_channels() -> None:
    found = spatial_features(maps(0), channels=2, pooled=(2, 4))
    wanted = maps(0)[:, :2].double().reshape(200, 2, 2, 4, 4, 2).mean((3, 5)).flatten(1)
    torch.testing.assert_close(found, wanted)


def test_only_the_spatial_distance_sees_shuffled_positions() -> None:
    measure, same, floor = (SpatialFrechetDistance() for _ in range(3))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    shuffled = maps(0).flatten(2)[:, :, order].unflatten(2, (8, 8))
    for part, moved in zip(maps(0).split(64), shuffled.split(64), strict=True):
        measure.update(moved, real=False)
        measure.update(part, real=True)
        same.update(part, real=False)
        same.update(part, real=True)
    floor.update(maps(1), real=False)
    floor.update(maps(0), real=True)
    assert frechet_distance(maps(0).mean((2, 3)), shuffled.mean((2, 3))) == pytest.approx(0, abs=1e-9)
    assert same.compute() == pytest.approx(0, abs=1e-9)
    assert measure.compute() > 3 * floor.compute()


def test_spatial_features_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="9 channels on 4x4 cells do not fit maps of 6 channels on 8x8"):
        spatial_features(maps(0), channels=9)

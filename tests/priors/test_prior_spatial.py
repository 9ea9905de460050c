"""Interpolation priors and the low-pass against torch, Pillow and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from prior_oracles import PAIRS, lowpass, name, random_map

from hguide.errors import ConfigError
from hguide.grids import Scale, Step
from hguide.priors import Area, Bicubic, Bilinear, Lanczos, LowPass, Nearest, registry
from hguide.priors.spatial import interpolation_matrix
from hguide.schedules import Linear

TOLERANCE = 1e-10  # absolute, float64
PILLOW = 2e-6  # Pillow stores float32 between its two passes

TORCH = [Nearest(), Bilinear(), Bicubic(), Area()]
laws = settings(derandomize=True, deadline=None, max_examples=30)


def by_torch(maps, target, mode):
    return torch.nn.functional.interpolate(maps.movedim(-1, 0)[None], size=target, mode=mode)[0].movedim(0, -1)


def by_pillow(maps, target):
    planes = [Image.fromarray(plane.numpy()) for plane in maps.float().movedim(-1, 0)]
    sized = [np.asarray(plane.resize((target[1], target[0]), Image.Resampling.LANCZOS)) for plane in planes]
    return torch.from_numpy(np.stack(sized, axis=-1))


@pytest.mark.parametrize("prior", TORCH, ids=str)
@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_interpolation_as_torch_computes_it(pair, prior):
    source, target = pair
    maps = random_map(*source, 2)
    expected = by_torch(maps, target, prior.mode)
    assert torch.allclose(prior(maps, target), expected, atol=TOLERANCE, rtol=0)
    assert torch.equal(prior.reference(maps, target), expected)


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_lanczos_as_pillow_computes_it(pair):
    source, target = pair
    maps = random_map(*source, 2)
    expected = by_pillow(maps, target)
    assert torch.allclose(Lanczos()(maps, target).float(), expected, atol=PILLOW, rtol=0)
    assert torch.allclose(Lanczos().reference(maps, target), Lanczos()(maps, target), atol=TOLERANCE, rtol=0)


@laws
@given(
    source=st.tuples(st.integers(1, 12), st.integers(1, 12)), target=st.tuples(st.integers(1, 12), st.integers(1, 12))
)
def test_grids_may_shrink(source, target):
    maps = random_map(*source, 1)
    for prior in TORCH:
        expected = by_torch(maps, target, prior.mode)
        assert torch.allclose(prior(maps, target), expected, atol=TOLERANCE, rtol=0)
    assert torch.allclose(Lanczos()(maps, target).float(), by_pillow(maps, target), atol=PILLOW, rtol=0)


@pytest.mark.parametrize("prior", [*TORCH, Lanczos()], ids=str)
@pytest.mark.parametrize(("source", "target"), [((1, 1), (3, 2)), ((4, 5), (7, 5)), ((6, 6), (6, 6))])
def test_rows_sum_to_one_and_equal_grids_are_identity(prior, source, target):
    matrix = prior.matrix(source, target)
    assert matrix.shape == (target[0] * target[1], source[0] * source[1])
    assert torch.allclose(matrix.sum(1), torch.ones(matrix.shape[0]).double(), atol=TOLERANCE, rtol=0)
    if source == target:
        assert torch.allclose(matrix, torch.eye(matrix.shape[0]).double(), atol=TOLERANCE, rtol=0)


def test_unknown_interpolation():
    with pytest.raises(ConfigError, match="unknown interpolation 'cubic': did you mean 'bicubic'"):
        interpolation_matrix("cubic", 2, 3)


def test_every_registered_prior_constructs_without_arguments():
    assert set(registry.names()) >= {"dse", "lowpass", "nearest", "bilinear", "bicubic", "area", "lanczos"}
    for known in registry.names():
        cls = registry.get(known)
        assert cls() == cls()
        assert hash(cls()) == hash(cls())
        assert registry.name_of(cls) == known
        assert "4x4" in cls().note((4, 4), (4, 4))


def step(index, count=10):
    return Step(index=index, count=count, call=0, scale=Scale(index, 8, 8))


@laws
@given(grid=st.tuples(st.integers(1, 20), st.integers(1, 20)), cutoff=st.sampled_from([0.05, 0.25, 0.5, 0.8, 1.0]))
def test_lowpass_is_a_projection_onto_low_frequencies(grid, cutoff):
    prior = LowPass(cutoff)
    maps = random_map(*grid, 2)
    low = prior(maps, grid)
    np.testing.assert_allclose(low.numpy(), lowpass(maps.numpy(), cutoff), atol=TOLERANCE, rtol=0)
    assert torch.allclose(prior.reference(maps, grid), low, atol=TOLERANCE, rtol=0)
    assert torch.allclose(prior(low, grid), low, atol=TOLERANCE, rtol=0)
    assert torch.allclose(prior.matrix(grid, grid), prior.matrix(grid, grid).T, atol=TOLERANCE, rtol=0)
    if cutoff == 1.0:
        assert torch.allclose(low, maps, atol=TOLERANCE, rtol=0)


def test_lowpass_does_not_round_a_cutoff_up():
    assert LowPass(0.1).note((30, 30), (30, 30)) == "30x30: low 3x3 of the DCT frequencies"


def test_lowpass_by_schedule():
    prior = LowPass(Linear(1.0))
    maps = random_map(8, 8, 2)
    assert prior.depends_on_step
    for index in (0, 3, 9):
        expected = lowpass(maps.numpy(), 1.0 - index / 10)
        np.testing.assert_allclose(prior(maps, (8, 8), step(index)).numpy(), expected, atol=TOLERANCE, rtol=0)
        reference = prior.reference(maps, (8, 8), step(index)).numpy()
        np.testing.assert_allclose(reference, expected, atol=TOLERANCE, rtol=0)
    with pytest.raises(ConfigError, match="needs the step"):
        prior(maps, (8, 8))
    with pytest.raises(ConfigError, match=r"in \(0, 1\], got 1.5"):
        LowPass(Linear(1.5))(maps, (8, 8), step(0))


@pytest.mark.parametrize("cutoff", [0.0, -0.1, 1.01, math.nan])
def test_lowpass_refuses_a_cutoff_outside(cutoff):
    with pytest.raises(ConfigError, match=r"fraction of the Nyquist frequency in \(0, 1\]"):
        LowPass(cutoff)


def test_lowpass_refuses_grids_that_differ():
    with pytest.raises(ConfigError, match="the map is 4x4 and the target 5x5; use dse"):
        LowPass()(random_map(4, 4, 1), (5, 5))

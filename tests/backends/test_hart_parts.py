"""Rotary positions, diffusion schedule, sinusoid and calls of HART against formulas written out another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hguide.backends.hart.diffusion_schedule import respaced
from hguide.backends.hart.maskgit import positions_of, still_masked
from hguide.backends.hart.rope import map_coordinates, map_rotation, rotate, text_positions, text_rotation
from hguide.backends.hart.smoothing import progress, smooth_temperature, soft_codes
from hguide.backends.hart.timestep import sinusoid
from hguide.errors import ConfigError
from hguide.grids import Scale, Step
from hguide.noise import SeededNoise
from hguide.sampling import Sampler


def literal(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """x_j cos(a_j) + (-x_{j + d/2} or x_{j - d/2}) sin(a_j), channel by channel."""
    d, out = len(x), np.empty_like(x)
    for j in range(d):
        partner = -x[j + d // 2] if j < d // 2 else x[j - d // 2]
        out[j] = x[j] * math.cos(angles[j]) + partner * math.sin(angles[j])
    return out


def test_text_is_rotated_along_its_positions() -> None:
    positions, d = text_positions(torch.tensor([[False, True, True, True], [True, True, False, False]])), 8
    assert positions.tolist() == [[-1, 0, 1, 2], [0, 1, 1, 1]]
    x = torch.randn(2, 3, 4, d, dtype=torch.float64)
    found = rotate(x, text_rotation(positions, d, torch.float64))
    frequencies = [10000.0 ** (-2 * j / d) for j in range(d // 2)]
    for row, head, token in np.ndindex(2, 3, 4):
        angles = np.array([int(positions[row, token]) * f for f in frequencies] * 2)
        np.testing.assert_allclose(found[row, head, token], literal(x[row, head, token].numpy(), angles), atol=1e-12)


@pytest.mark.parametrize("side", [2, 3, 5])
def test_maps_turn_one_member_of_a_pair_with_the_row_and_one_with_the_column(side: int) -> None:
    last, d, offset = 5, 12, torch.tensor([3, 0])
    x = torch.randn(2, 2, side * side, d, dtype=torch.float64)
    coordinates = map_coordinates((side, side), last)[None]
    found = rotate(x, map_rotation(coordinates, offset, d, torch.float64))
    frequencies = [10000.0 ** (-4 * j / d) for j in range(d // 4)]
    for row, head, token in np.ndindex(2, 2, side * side):
        r, c = (place * last / side + float(offset[row]) for place in divmod(token, side))
        angles = np.array([r * f for f in frequencies] * 2 + [c * f for f in frequencies] * 2)
        wanted = literal(x[row, head, token].numpy(), angles)
        np.testing.assert_allclose(found[row, head, token], wanted, atol=1e-5)  # coordinates are float32


def test_the_rotation_of_maps_keeps_no_norm() -> None:
    x = torch.ones(1, 1, 4, 8)
    turned = rotate(x, map_rotation(map_coordinates((2, 2), 8)[None], torch.tensor([0]), 8, torch.float32))
    norms = turned.norm(dim=-1)[0, 0]
    torch.testing.assert_close(norms[0], torch.tensor(8.0).sqrt())  # r = c = 0
    assert (norms[1] - norms[0]).abs() > 1e-2  # r != c


def test_places_of_partial_maps_have_the_rotation_of_the_whole() -> None:
    whole = map_rotation(map_coordinates((3, 3), 5)[None], torch.tensor([2, 1]), 8, torch.float32)
    places = torch.tensor([[0, 4, 8]])
    part = map_rotation(map_coordinates((3, 3), 5)[places], torch.tensor([2, 1]), 8, torch.float32)
    assert torch.equal(part.cos, whole.cos[:, :, places[0]])
    assert torch.equal(part.sin, whole.sin[:, :, places[0]])


@pytest.mark.parametrize("count", [2, 5, 8, 50, 1000])
def test_a_respaced_diffusion_has_the_noise_levels_of_the_whole_one(count: int) -> None:
    def level(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - level((i + 1) / 1000) / level(i / 1000), 0.999) for i in range(1000)]
    kept = [math.prod(1 - beta for beta in betas[: t + 1]) for t in range(1000)]
    schedule = respaced(count)
    assert schedule.timestep_map[0] == 0
    assert schedule.timestep_map[-1] == 999
    gaps = np.diff(schedule.timestep_map)
    assert gaps.max() - gaps.min() <= 1
    wanted = [kept[t] for t in schedule.timestep_map]
    # 1 - beta, of a beta that is 1 but for 1e-9, has half of its digits left.
    np.testing.assert_allclose(schedule.alphas_cumprod, wanted, rtol=1e-7)
    np.testing.assert_allclose(np.square(schedule.sqrt_recip_alphas_cumprod), 1 / np.array(wanted), rtol=1e-7)
    # The posterior of q(x_{i-1} | x_i, x_0) by Bayes' rule for two Gaussians.
    for i in range(1, count):
        before, beta = wanted[i - 1], schedule.betas[i]
        precision = (1 - beta) / beta + 1 / (1 - before)
        assert schedule.posterior_variance[i] == pytest.approx(1 / precision, rel=1e-6)
        assert schedule.posterior_mean_coef1[i] == pytest.approx(math.sqrt(before) / (1 - before) / precision, rel=1e-6)
        assert schedule.posterior_mean_coef2[i] == pytest.approx(math.sqrt(1 - beta) / beta / precision, rel=1e-6)


def test_diffusion_steps_are_checked() -> None:
    for count in (0, 1, 1001):
        with pytest.raises(ConfigError, match=f"2 to 1000 diffusion steps, got {count}"):
            respaced(count)


def test_sinusoid() -> None:
    found = sinusoid(torch.tensor([0.0, 7.0], dtype=torch.float64), 6)
    frequencies = [10000.0 ** (-i / 3) for i in range(3)]
    wanted = [[math.cos(t * f) for f in frequencies] + [math.sin(t * f) for f in frequencies] for t in (0, 7)]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@given(tokens=st.integers(1, 300), iterations=st.integers(1, 40))
def test_calls_cover_each_place_once(tokens: int, iterations: int) -> None:
    left = still_masked(tokens, iterations)
    assert len(left) <= iterations
    assert left[-1] == 0
    order = torch.randperm(tokens)[None]
    parts = [positions_of(order, left, call)[0].tolist() for call in range(len(left))]
    assert all(part and part == sorted(part) for part in parts)
    assert sorted(place for part in parts for place in part) == list(range(tokens))
    assert parts[-1] == sorted(order[0, : len(parts[-1])].tolist())


def test_the_recorded_split() -> None:
    assert [len(positions_of(torch.arange(25)[None], still_masked(25, 3), call)[0]) for call in range(3)] == [4, 9, 12]
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        still_masked(25, 0)


def test_the_last_scale_keeps_the_numbers_of_the_scale_before() -> None:
    steps = [Step(k, 4, 0, Scale(k, 1, 1)) for k in range(4)]
    assert [progress(step, True) for step in steps] == [0, 1 / 3, 2 / 3, 2 / 3]
    assert [progress(step, False) for step in steps] == [0, 1 / 3, 2 / 3, 1]
    assert smooth_temperature(0.0) == 0.27
    assert smooth_temperature(1.0) == pytest.approx(0.0135)


def test_soft_codes_mix_what_the_filters_keep() -> None:
    """The same with and without dropped columns; a temperature of 0.27 around the strongest of noise and logits."""
    step, noise = Step(1, 4, 0, Scale(1, 2, 2)), SeededNoise([3, 4])
    logits, codebook = torch.randn(2, 4, 9) * 3, torch.randn(9, 5)
    kept = Sampler(top_k=4).candidates(logits, step)
    found = soft_codes(kept, noise, step, 1 / 3, codebook)
    gumbel = noise.gumbel(step, "smooth", 4, 9)
    weights = ((kept.dense(9) * (4 / 3) + gumbel) / smooth_temperature(1 / 3)).softmax(-1)
    torch.testing.assert_close(found, weights @ codebook)
    assert (weights > 0).sum(-1).max() <= 4

"""Filters against a full-sort oracle written out as in the official samplers, and the laws of the draw."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hguide.errors import ConfigError, ShapeError
from hguide.grids import Scale, Step
from hguide.noise import SeededNoise
from hguide.sampling import Prefix, Replay, Sampler, _filtered, _filtered_without_waiting
from hguide.schedules import Constant, Linear, Ramp

STEP = Step(1, 4, 0, Scale(1, 2, 3))


def filtered(logits: np.ndarray, top_k: int, top_p: float) -> np.ndarray:
    """Threshold, then ascending sort and cumulated softmax, in float64."""
    out = logits.astype(np.float64).copy()
    if top_k > 0:
        threshold = np.sort(out)[-top_k]
        out[out < threshold] = -np.inf
    if top_p > 0:
        order = np.argsort(out, kind="stable")
        mass = np.exp(out[order] - out.max())
        cumulated = np.cumsum(mass / mass.sum())
        drop = order[:-1][cumulated[:-1] <= 1 - top_p]
        out[drop] = -np.inf
    return out


def logits_of(seed: int, v: int = 24, rounded: bool = False) -> Tensor:
    logits = torch.randn(2, 2, 3, v, generator=torch.Generator().manual_seed(seed)) * 3
    return (logits * 2).round() / 2 if rounded else logits


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.integers(0, 24), st.sampled_from([0.0, 0.3, 0.9, 0.96]), st.booleans())
@example(0, 24, 0.0, True)
@example(3, 1, 0.5, False)
def test_filters_equal_the_oracle(seed: int, top_k: int, top_p: float, ties: bool) -> None:
    logits = logits_of(seed, rounded=ties and top_p == 0.0)
    dense = Sampler(top_k=top_k, top_p=top_p).candidates(logits, STEP).dense(24)
    for got, row in zip(dense.flatten(0, 1), logits.flatten(0, 2), strict=True):
        np.testing.assert_array_equal(got.numpy() > -math.inf, filtered(row.numpy(), top_k, top_p) > -math.inf)
        kept = got > -math.inf
        assert torch.equal(got[kept], row[kept])


def test_ties_at_the_threshold_survive() -> None:
    logits = torch.tensor([3.0, 1.0, 2.0, 2.0, 2.0, 0.0]).expand(1, 2, 3, 6)
    kept = Sampler(top_k=2).candidates(logits, STEP)
    assert torch.equal(kept.count(), torch.full((1, 6), 4))
    mixed = logits.clone()
    mixed[0, 0, 0] = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0, 4.0])
    assert Sampler(top_k=2).candidates(mixed, STEP).count().tolist() == [[2, 4, 4, 4, 4, 4]]


@pytest.mark.parametrize("p", [0.0, 0.8])
@pytest.mark.parametrize("k", [0, 1, 7, 23])
def test_filters_that_wait_for_nothing_keep_the_same_tokens(k: int, p: float) -> None:
    logits = logits_of(k, rounded=p == 0.0).flatten(1, 2)
    found = _filtered_without_waiting(logits, k, p)
    assert torch.equal(found.dense(24), _filtered(logits, k, p).dense(24))


def test_the_most_probable_token_survives_any_top_p() -> None:
    kept = Sampler(top_p=1e-6).candidates(logits_of(0), STEP)
    assert torch.equal(kept.count(), torch.ones(2, 6, dtype=torch.int64))


def test_the_draw_follows_the_softmax() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0]).expand(1, 1, 1, 4)
    step = Step(0, 1, 0, Scale(0, 1, 1))
    noise = SeededNoise(range(20000))
    tokens = Sampler(temperature=0.7).categorical(logits.expand(20000, 1, 1, 4), noise, step).flatten()
    frequency = torch.bincount(tokens, minlength=4) / 20000
    assert torch.allclose(frequency, (logits[0, 0, 0] / 0.7).softmax(0), atol=0.012)


def test_a_candidates_noise_does_not_depend_on_the_filter() -> None:
    """The token drawn without a filter is drawn with it too, wherever the filter keeps it."""
    logits = logits_of(1)
    noise = SeededNoise([0, 1])
    free = Sampler().categorical(logits, noise, STEP)
    for sampler in (Sampler(top_k=8), Sampler(top_p=0.8), Sampler(top_k=12, top_p=0.9)):
        kept = sampler.candidates(logits, STEP).dense(24).reshape(logits.shape)
        inside = kept.gather(-1, free[..., None])[..., 0] > -math.inf
        drawn = sampler.categorical(logits, noise, STEP)
        assert torch.equal(drawn[inside], free[inside])
        assert inside.any()


def test_logits_are_left_as_they_are() -> None:
    logits = logits_of(2)
    before = logits.clone()
    Sampler(temperature=0.5, top_k=5, top_p=0.5).categorical(logits, SeededNoise([0, 1]), STEP)
    assert torch.equal(logits, before)


def test_settings_may_be_schedules_and_lists() -> None:
    sampler = Sampler(temperature=Linear(2.0), top_k=(0, 3, 0, 0), top_p=[0.0, 0.0, 0.0, 0.5])
    assert sampler.at("temperature", STEP) == 1.5
    assert sampler.candidates(logits_of(0), STEP).values.shape[-1] == 3
    with pytest.raises(ConfigError, match="top_k lists 2 numbers, the generator has 4 steps"):
        Sampler(top_k=(1, 2)).candidates(logits_of(0), STEP)


def test_temperature_may_be_a_function_of_the_filtered_logits() -> None:
    sampler = Sampler(temperature=lambda values: torch.full_like(values[..., :1], 2.0), top_k=4)
    kept = sampler.candidates(logits_of(0), STEP)
    assert torch.equal(kept.values, Sampler(top_k=4).candidates(logits_of(0), STEP).values / 2)


def test_bits_are_two_channels_with_one_sigmoid() -> None:
    differences = torch.tensor([1.0, -2.0, 0.0]).expand(20000, 1, 1, 3)
    step = Step(0, 1, 0, Scale(0, 1, 1))
    bits = Sampler(temperature=2.0).bits(differences, SeededNoise(range(20000)), step).float()
    assert torch.allclose(bits.mean((0, 1, 2)), torch.sigmoid(differences[0, 0, 0] / 2), atol=0.012)
    assert torch.equal(
        Sampler(top_k=1).bits(differences[:1], SeededNoise([0]), step)[0, 0, 0, :2], torch.tensor([1, 0])
    )
    likely = Sampler(top_p=0.5).bits(differences, SeededNoise(range(20000)), step)
    assert likely[..., 0].all()
    assert not likely[..., 1].any()


def test_replay_gives_back_what_was_recorded() -> None:
    tokens = torch.arange(12).reshape(2, 2, 3)
    assert torch.equal(
        Replay(tokens=[tokens, tokens + 1]).categorical(logits_of(0), SeededNoise([0, 1]), STEP), tokens + 1
    )
    assert torch.equal(Replay(tokens={(1, 0): tokens}).categorical(logits_of(0), SeededNoise([0, 1]), STEP), tokens)
    with pytest.raises(ShapeError, match="no recorded tokens for step 1, call 0"):
        Replay(tokens=[tokens]).categorical(logits_of(0), SeededNoise([0, 1]), STEP)
    with pytest.raises(ShapeError, match="asked for"):
        Replay(tokens=[tokens, tokens[:1]]).categorical(logits_of(0), SeededNoise([0, 1]), STEP)


def test_a_prefix_is_given_and_the_rest_drawn_as_without_it() -> None:
    tokens = torch.arange(12).reshape(2, 2, 3)
    noise, later = SeededNoise([0, 1]), Step(2, 4, 0, Scale(2, 2, 3))
    prefix = Prefix(top_k=5, tokens=[tokens, tokens + 1])
    assert torch.equal(prefix.categorical(logits_of(0), noise, STEP), tokens + 1)
    expected = Sampler(top_k=5).categorical(logits_of(0), noise, later)
    assert torch.equal(prefix.categorical(logits_of(0), noise, later), expected)
    bits = torch.ones(2, 2, 3, 24, dtype=torch.int64)
    assert torch.equal(Prefix(tokens=[bits, bits]).bits(logits_of(0), noise, STEP), bits)
    assert torch.equal(
        Prefix(tokens=[bits]).bits(logits_of(0), noise, later), Sampler().bits(logits_of(0), noise, later)
    )
    with pytest.raises(ConfigError, match="a sequence of maps"):
        Prefix(tokens={(0, 0): tokens})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature is positive and finite, got 0.0"),
        ({"top_k": -1}, "top_k is 0 .all. or a number of tokens, got -1"),
        ({"top_k": math.inf}, "top_k is 0 .all. or a number of tokens, got inf"),
        ({"top_k": 2.5}, "top_k is a whole number"),
        ({"top_p": 1.5}, "top_p is from 0 to 1, got 1.5"),
        ({"temperature": -1.0, "top_p": 2.0}, "temperature.*; top_p"),
    ],
)
def test_bad_settings_are_all_named(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampler(**options)


def test_more_candidates_than_tokens() -> None:
    with pytest.raises(ConfigError, match="top_k = 25 but there are 24 tokens"):
        Sampler(top_k=25).candidates(logits_of(0), STEP)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": Ramp(1.0)}, r"temperature is positive and finite, got 0.0 at step 0 from Ramp"),
        ({"temperature": Constant(-1.0)}, "temperature is positive and finite, got -1.0"),
        ({"top_k": Constant(-5.0)}, "top_k is 0 .all. or a number of tokens, got -5.0"),
        ({"top_p": Constant(1.5)}, "top_p is from 0 to 1, got 1.5"),
        ({"top_p": Constant(-0.5)}, "top_p is from 0 to 1, got -0.5"),
    ],
)
def test_schedules_that_leave_the_range(setting, message):
    sampler, here = Sampler(**setting), Step(0, 4, 0, Scale(0, 1, 1))
    with pytest.raises(ConfigError, match=message):
        sampler.candidates(torch.zeros(1, 1, 8), here)
    with pytest.raises(ConfigError, match=message):
        sampler.bits(torch.zeros(1, 1, 8), SeededNoise([0]), here)


@pytest.mark.parametrize(("number", "kept"), [(0.0, 8), (0.3, 1), (1.0, 1), (2.7, 2), (8.0, 8)])
def test_top_k_of_a_schedule_is_rounded_down_but_never_to_all(number, kept):
    logits = torch.arange(8.0).view(1, 1, 8)
    found = Sampler(top_k=Constant(number)).candidates(logits, Step(0, 4, 0, Scale(0, 1, 1)))
    assert found.count().item() == kept


@pytest.mark.parametrize("value", [None, "200", "entropy", range(3), np.ones(7), True])
@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p"])
def test_settings_of_another_type(name, value, unchecked_types):
    with pytest.raises(ConfigError, match=f"{name} is a number, a list of one number per step, or a schedule, got"):
        Sampler(**{name: value})


@pytest.mark.parametrize("order", [range(6), reversed(range(6))])
def test_ties_at_the_threshold_of_top_p_are_kept_whatever_their_order(order):
    """0.4, 0.2, 0.1 four times: of the four that tie, top_p = 0.75 needs two."""
    order = torch.tensor([*order])
    probabilities = torch.tensor([0.4, 0.2, 0.1, 0.1, 0.1, 0.1])[order]
    found = Sampler(top_p=0.75).candidates(probabilities.log().view(1, 1, 6), Step(0, 4, 0, Scale(0, 1, 1)))
    assert found.count().item() == 6
    found = Sampler(top_p=0.55).candidates(probabilities.log().view(1, 1, 6), Step(0, 4, 0, Scale(0, 1, 1)))
    assert sorted(found.channels[found.values > -math.inf].tolist()) == sorted(
        (order == token).nonzero().item() for token in (0, 1)
    )


@pytest.mark.parametrize("width", [2, 8, 5000])
def test_the_most_probable_token_survives_the_smallest_top_p(width):
    """1 - 1e-12 is 1 in float32, which the cumulated probability reaches or not, by its rounding."""
    logits = torch.zeros(1, 1, width)
    logits[0, 0, 1] = 1e-3
    found = Sampler(top_p=1e-12).candidates(logits, Step(0, 4, 0, Scale(0, 1, 1)))
    assert found.channels[found.values > -math.inf].tolist() == [1]

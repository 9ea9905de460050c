"""The reverse process against dense float64 Bayes, loops and tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hguide.backends.vq_diffusion.codebook_map import codes_in_use, inverse
from hguide.backends.vq_diffusion.inference import Call, Inference
from hguide.backends.vq_diffusion.log_probabilities import log_probabilities, normalised, with_mask_row
from hguide.backends.vq_diffusion.noise_schedule import NoiseSchedule
from hguide.backends.vq_diffusion.posterior import forward_log_probabilities, posterior
from hguide.backends.vq_diffusion.purity import purity, revealed, selection_score, sharpened
from hguide.backends.vq_diffusion.start import Start
from hguide.backends.vq_diffusion.truncation import filtered, truncated
from hguide.errors import ConfigError, ShapeError
from hguide.grids import Scale, Step
from hguide.noise import SeededNoise
from hguide.sampling import Sampler
from hguide.temperature import EntropyTemperature

K, T = 7, 10
STEP = Step(0, T, 0, Scale(0, 2, 3))


def transitions(schedule: NoiseSchedule) -> list[np.ndarray]:
    """q(x_t = j | x_{t-1} = i) of each step as a matrix [i, j] over the codes and the mask."""
    found = []
    p = schedule.probabilities
    for a, b, c in zip(p["at"].tolist(), p["bt"].tolist(), p["ct"].tolist(), strict=True):
        matrix = np.zeros((K + 1, K + 1))
        matrix[:K, :K] = a * np.eye(K) + b
        matrix[:K, K] = c
        matrix[K, K] = 1.0
        found.append(matrix)
    return found


def cumulative(schedule: NoiseSchedule, timestep: int) -> np.ndarray:
    """q(x_t | x_0), the product of the steps up to t; the identity before step 0."""
    total = np.eye(K + 1)
    for matrix in transitions(schedule)[: timestep + 1]:
        total = total @ matrix
    return total


def random_log_x0(seed: int, places: int = 6) -> Tensor:
    logits = torch.randn(2, places, K, generator=torch.Generator().manual_seed(seed)) * 2.0
    return with_mask_row(log_probabilities(logits))


def test_probabilities_of_a_step_sum_to_one_and_multiply_to_the_cumulative_ones() -> None:
    schedule = NoiseSchedule(T, K)
    p = schedule.probabilities
    assert torch.allclose(p["at"] + K * p["bt"] + p["ct"], torch.ones(T, dtype=torch.float64), atol=1e-14)
    for t in range(T):
        product = cumulative(schedule, t)
        np.testing.assert_allclose(product[0, 0] - product[0, 1], float(p["att"][t]), rtol=1e-9)
        np.testing.assert_allclose(product[0, K], float(p["ctt"][t]), rtol=1e-9)
        np.testing.assert_allclose(product[0, 1], float(p["btt"][t]), rtol=1e-6)
    assert [float(p[name][-1]) for name in ("att", "btt", "ctt")] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("timestep", [0, 1, 5, T - 1])
def test_posterior_is_that_of_bayes(timestep: int) -> None:
    schedule = NoiseSchedule(T, K)
    log_x0 = random_log_x0(timestep)
    tokens = torch.tensor([[0, 3, K, K, 6, 1], [K, K, K, 2, 2, 5]])
    found = posterior(log_x0, tokens, timestep, schedule).double().exp().numpy()
    step, now, before = (
        transitions(schedule)[timestep],
        cumulative(schedule, timestep),
        cumulative(schedule, timestep - 1),
    )
    for b in range(2):
        for i in range(6):
            x_t = int(tokens[b, i])
            p = log_x0[b, i, :K].double().exp().numpy()
            expected = sum(p[k] * step[:, x_t] * before[k] / now[k, x_t] for k in range(K))
            np.testing.assert_allclose(found[b, i], expected, atol=3e-6)
            np.testing.assert_allclose(found[b, i].sum(), 1.0, atol=1e-5)


def test_posterior_keeps_the_mass_that_truncation_leaves() -> None:
    log_x0 = truncated(random_log_x0(1), 0.6)
    tokens = torch.tensor([[0, 3, K, K, 6, 1], [K, K, K, 2, 2, 5]])
    mass = posterior(log_x0, tokens, 4, NoiseSchedule(T, K)).exp().sum(-1)
    assert torch.allclose(mass[tokens == K], log_x0.exp().sum(-1)[tokens == K], atol=1e-4)
    assert float(mass[tokens == K].max()) < 0.999


def test_forward_probabilities_are_those_of_the_product() -> None:
    schedule = NoiseSchedule(T, K)
    tokens = torch.tensor([[0, 5, 6]])
    for t in (0, 4, T - 1):
        found = forward_log_probabilities(tokens, t, schedule).exp().numpy()
        np.testing.assert_allclose(found[0], cumulative(schedule, t)[[0, 5, 6]], atol=1e-6)


def test_log_probabilities_are_clamped_and_normalised() -> None:
    logits = torch.tensor([[0.0, 1.0, 500.0]])
    assert log_probabilities(logits).tolist() == [[-70.0, -70.0, 0.0]]
    values = torch.randn(4, K) * 3.0
    assert torch.allclose(normalised(values), values.log_softmax(-1), atol=1e-6)
    assert with_mask_row(values)[:, -1].tolist() == [-70.0] * 4


# Truncation


def official_truncation(row: list[float], rate: float) -> list[float]:
    order = sorted(range(len(row)), key=lambda j: -row[j])
    kept, mass = [-70.0] * len(row), 0.0
    for j in order:
        if mass < rate:
            kept[j] = row[j]
        mass += math.exp(row[j])
    return kept


@given(st.integers(0, 10_000), st.floats(0.01, 0.99))
@settings(max_examples=40, deadline=None)
def test_truncation_is_that_of_a_loop(seed: int, rate: float) -> None:
    log_x0 = random_log_x0(seed).double()
    expected = [[official_truncation(row, rate) for row in rows] for rows in log_x0.tolist()]
    assert torch.equal(truncated(log_x0, rate), torch.tensor(expected, dtype=torch.float64))


def test_full_rate_keeps_all_and_a_small_one_the_first() -> None:
    log_x0 = random_log_x0(0)
    assert torch.equal(truncated(log_x0, 1.0), log_x0)
    assert ((truncated(log_x0, 1e-6) > -70.0).sum(-1) == 1).all()


def test_filters_of_the_sampler() -> None:
    logits = torch.randn(2, 6, K, generator=torch.Generator().manual_seed(0)) * 3.0
    plain = filtered(logits, Sampler(), STEP)
    assert torch.allclose(plain[..., :K], logits.log_softmax(-1), atol=1e-6)
    assert torch.equal(filtered(logits, Sampler(top_p=0.8), STEP), truncated(plain, 0.8))
    three = filtered(logits, Sampler(top_k=3), STEP)
    assert ((three > -70.0).sum(-1) == 3).all()
    assert torch.equal(three[three > -70.0], plain[three > -70.0])
    half = filtered(logits, Sampler(temperature=0.5), STEP)
    assert torch.allclose(half[..., :K], (2.0 * logits).log_softmax(-1), atol=1e-5)
    with pytest.raises(ConfigError, match="top_k = 8 but there are 7 codes"):
        filtered(logits, Sampler(top_k=8), STEP)


def test_a_temperature_of_the_logits_acts_after_the_filters_and_leaves_the_mass() -> None:
    logits = torch.randn(2, 6, K, generator=torch.Generator().manual_seed(0)) * 3.0
    cut = filtered(logits, Sampler(top_p=0.8), STEP)
    found = filtered(logits, Sampler(top_p=0.8, temperature=EntropyTemperature()), STEP)
    assert torch.equal(found > -70.0, cut > -70.0)
    assert torch.allclose(found.exp().sum(-1), cut.exp().sum(-1), atol=1e-5)
    same = filtered(logits, Sampler(top_p=0.8, temperature=lambda values: torch.ones_like(values[..., :1])), STEP)
    assert torch.allclose(same, cut, atol=1e-5)


# Which calls are made


def test_plain_inference_visits_every_timestep() -> None:
    assert Inference().calls(4, 9) == tuple((Call(t, t),) for t in (3, 2, 1, 0))
    assert Inference().calls(4, 9, start=2) == ((Call(1, 1),), (Call(0, 0),))


def test_fast_inference_skips_timesteps_and_ends_at_zero() -> None:
    def pairs(speed: int) -> list[tuple[int, int]]:
        return [(call.network, call.posterior) for (call,) in Inference(speed=speed).calls(10, 9)]

    assert pairs(2) == [(9, 8), (7, 6), (5, 4), (3, 2), (1, 1), (0, 0)]
    assert pairs(4) == [(9, 6), (5, 2), (1, 1), (0, 0)]
    assert pairs(3) == [(9, 7), (6, 4), (3, 1), (0, 0)]


@pytest.mark.parametrize(("timesteps", "length"), [(100, 1024), (100, 256), (10, 16), (10, 12), (100, 30)])
def test_an_even_share_reveals_every_token(timesteps: int, length: int) -> None:
    calls = Inference(prior_rule=2).calls(timesteps, length)
    revealed_before_the_last = sum(call.reveal for step in calls for call in step)
    assert revealed_before_the_last + length // timesteps == length
    assert calls[-1] == (Call(0, 0),)
    assert all(call.reveal for step in calls[:-1] for call in step)


def test_high_quality_reveals_in_parts_and_a_single_leftover_joins() -> None:
    inference = Inference(speed=0.5)
    assert inference.rule == 1
    sizes = [[call.reveal for call in step] for step in inference.calls(100, 1024)]
    assert sizes[0] in ([5, 5], [5, 6])
    shares = (1, 4, 4, 3, 5)
    parts = Inference(prior_rule=1, tokens_per_step=shares, tokens_per_call=2).calls(5, 17)
    assert [[call.reveal for call in step] for step in parts] == [[2, 3], [3], [2, 2], [2, 2], [0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 1.5}, r"speed is in \(0, 1\], or 2, 3"),
        ({"speed": 0.0}, "speed is in"),
        ({"speed": 2.0, "prior_rule": 2}, "a prior rule needs every timestep"),
        ({"prior_rule": 3}, "prior_rule is 0, 1 or 2"),
        ({"prior_weight": 1.0}, "prior_weight belongs to prior_rule 2"),
        ({"tokens_per_call": 3}, "belong to a prior rule"),
        ({"prior_rule": 1, "tokens_per_call": 0}, "tokens_per_call is at least 1"),
        ({"prior_rule": 1, "tokens_per_step": (1, -1)}, "tokens_per_step are numbers >= 0"),
    ],
)
def test_inference_that_cannot_work(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Inference(**options)


def test_inference_with_a_table_of_another_model() -> None:
    with pytest.raises(ConfigError, match="lists 2 timesteps, the model has 10"):
        Inference(prior_rule=1, tokens_per_step=(1, 1)).calls(10, 9)


# Purity


def test_purity_scores_and_sharpening() -> None:
    log_x0 = random_log_x0(3)
    p = log_x0.double().exp().numpy()
    score = p.max(-1) / (p.max(-1).max(-1, keepdims=True) + 1e-10)
    np.testing.assert_allclose(purity(log_x0).numpy(), score, atol=1e-6)
    logits = (1.0 + 2.0 * score[..., None]) * log_x0.double().numpy()
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(sharpened(log_x0, 2.0).numpy(), np.clip(expected, -70, 0), atol=1e-5)
    assert torch.equal(sharpened(log_x0, 0.0), log_x0)
    visible = torch.tensor([[True, False] * 3] * 2)
    assert torch.equal(selection_score(log_x0, visible, 1), (~visible).float())
    assert torch.equal(selection_score(log_x0, visible, 2), purity(log_x0) * ~visible)


def test_revealed_positions_are_masked_ones_and_as_many_as_asked_for() -> None:
    score = torch.tensor([[0.0, 1.0, 0.5, 0.2], [0.0, 0.0, 0.0, 1.0]])
    chosen, order = revealed(score, 2, torch.ones(2, 4, 1))
    assert chosen.tolist() == [[False, True, True, False], [False, False, False, True]]
    assert order[0].tolist() == [1, 2]
    everything, _ = revealed(score, 9, torch.ones(2, 4, 1))
    assert torch.equal(everything, score > 0)


def test_positions_are_chosen_in_proportion_to_their_score() -> None:
    weights = torch.tensor([0.1, 0.2, 0.7])
    draws = 20_000
    exponential = torch.empty(draws, 3, 1).exponential_(generator=torch.Generator().manual_seed(0))
    chosen, _ = revealed(weights.expand(draws, 3), 1, exponential)
    assert torch.allclose(chosen.float().mean(0), weights, atol=4 * 0.5 / math.sqrt(draws))


# Start and codes


def test_start_noises_the_picture() -> None:
    schedule, side = NoiseSchedule(T, K), 30
    tokens = torch.randint(K, (1, side, side), generator=torch.Generator().manual_seed(0))
    found = Start(tokens, 0.5).noisy(2, (side, side), schedule, SeededNoise([0, 1]), STEP, torch.device("cpu"))
    assert not torch.equal(found[0], found[1])
    masked = (found == K).float().mean().item()
    expected = float(schedule.probabilities["ctt"][4])
    assert abs(masked - expected) < 4 * math.sqrt(expected * (1 - expected) / found.numel())
    known = found != K
    assert torch.equal(found[known], tokens.flatten(1).expand(2, -1)[known])


def test_start_that_cannot_work() -> None:
    tokens = torch.zeros(1, 2, 3, dtype=torch.int64)
    with pytest.raises(ConfigError, match="ratio is a part of the timesteps"):
        Start(tokens, 0.0)
    with pytest.raises(ShapeError, match="map of one picture, got"):
        Start(tokens[0], 0.5)
    with pytest.raises(ConfigError, match="of 10 timesteps is none"):
        Start(tokens, 0.05).timesteps(10)
    with pytest.raises(ShapeError, match="map of one picture, got"):
        Start(tokens.expand(3, 2, 3), 0.5)
    with pytest.raises(ShapeError, match="encode the picture with the same model"):
        Start(tokens, 0.5).noisy(2, (3, 3), NoiseSchedule(T, K), SeededNoise([0, 1]), STEP, torch.device("cpu"))


def test_codes_in_use() -> None:
    assert torch.equal(codes_in_use(5, 5), torch.arange(5))
    published = codes_in_use(974, 16384)
    assert published.shape == (974,)
    assert int(published[0]) == 0
    assert bool((published.diff() > 0).all())
    back = inverse(published, 16384)
    assert torch.equal(back[published], torch.arange(974))
    unused = torch.ones(16384, dtype=torch.bool)
    unused[published] = False
    assert not back[unused].any()
    with pytest.raises(ConfigError, match="974 codes and the tokenizer 8192: there is no table"):
        codes_in_use(974, 8192)

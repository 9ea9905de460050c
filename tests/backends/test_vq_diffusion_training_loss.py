"""The loss of VQ-Diffusion against dense float64 matrices, and what its training draws."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_vq_diffusion import CODES, STEPS, tiny_config, tiny_vq_diffusion
from torch import Tensor

from hguide.backends.vq_diffusion import Denoiser, Inference, NoiseSchedule, noise_schedule
from hguide.backends.vq_diffusion.inference import even_shares
from hguide.backends.vq_diffusion.initialise import initialise, waves
from hguide.backends.vq_diffusion.log_probabilities import log_probabilities, with_mask_row
from hguide.backends.vq_diffusion.posterior import forward_log_probabilities, posterior
from hguide.backends.vq_diffusion.training_loss import loss_terms, noisy_tokens, spread_timesteps
from hguide.errors import ConfigError

K, T, L = 7, 10, 6


def step_matrix(schedule: NoiseSchedule, t: int) -> Tensor:
    """q(x_t = j | x_{t-1} = i) as a matrix [i, j] over the codes and the mask."""
    a, b, c = (float(schedule.probabilities[name][t]) for name in ("at", "bt", "ct"))
    matrix = torch.zeros(K + 1, K + 1, dtype=torch.float64)
    matrix[:K, :K] = a * torch.eye(K, dtype=torch.float64) + b
    matrix[:K, K] = c
    matrix[K, K] = 1.0
    return matrix


def product(schedule: NoiseSchedule, t: int) -> Tensor:
    """q(x_t | x_0), multiplied out; the identity before step 0."""
    total = torch.eye(K + 1, dtype=torch.float64)
    for index in range(t + 1):
        total = total @ step_matrix(schedule, index)
    return total


def dense_divergence(logits: Tensor, clean: int, noisy: int, t: int, schedule: NoiseSchedule) -> Tensor:
    """KL(q(x_{t-1} | x_t, x_0) || sum_k p(x_0 = k | x_t) q(x_{t-1} | x_t, x_0 = k)) by Bayes on matrices."""
    before, step = product(schedule, t - 1), step_matrix(schedule, t)
    joint = before[:K] * step[:, noisy]
    reverse = joint / joint.sum(1, keepdim=True)
    true, found = reverse[clean], logits.softmax(-1) @ reverse
    possible = true > 0
    return (true[possible] * (true[possible].log() - found[possible].log())).sum()


CLEAN, NOISY = torch.tensor([[0, 3, 6, 2, 5, 1]]), torch.tensor([[K, 3, K, 2, 0, K]])
"""Tokens that were masked, kept, and replaced by another code."""


@pytest.mark.parametrize("t", [0, 1, 4, T - 1])
def test_divergence_and_entropy_are_those_of_dense_matrices(t: int) -> None:
    schedule = NoiseSchedule(T, K)
    logits = torch.randn(1, L, K, generator=torch.Generator().manual_seed(t)) * 2.0
    found = loss_terms(logits, CLEAN, NOISY, torch.tensor([t]), schedule)
    each = [dense_divergence(logits[0, i].double(), int(CLEAN[0, i]), int(NOISY[0, i]), t, schedule) for i in range(L)]
    assert found.divergence.item() == pytest.approx(float(sum(each)) / L, rel=2e-5, abs=1e-6)
    entropy = torch.nn.functional.cross_entropy(logits[0].double(), CLEAN[0])
    assert found.entropy.item() == pytest.approx(entropy.item(), rel=1e-5)


@pytest.mark.parametrize("t", [0, 3, T - 1])
def test_gradient_is_that_of_dense_matrices(t: int) -> None:
    schedule = NoiseSchedule(T, K)
    values = torch.randn(1, L, K, generator=torch.Generator().manual_seed(t))
    logits, exact = values.clone().requires_grad_(), values.double().requires_grad_()
    loss_terms(logits, CLEAN, NOISY, torch.tensor([t]), schedule).total(T, 0.25).backward()
    each = [dense_divergence(exact[0, i], int(CLEAN[0, i]), int(NOISY[0, i]), t, schedule) for i in range(L)]
    entropy = torch.nn.functional.cross_entropy(exact[0], CLEAN[0])
    (T * (sum(each) / L + 0.25 * entropy)).backward()
    assert logits.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)


def test_certainty_about_the_clean_tokens_costs_nothing() -> None:
    schedule = NoiseSchedule(T, K)
    clean = torch.arange(L).unsqueeze(0)
    certain = 200.0 * torch.nn.functional.one_hot(clean, K).float()
    for t in range(T):
        terms = loss_terms(certain, clean, torch.full_like(clean, K), torch.tensor([t]), schedule)
        assert abs(terms.divergence.item()) < 1e-5
        assert terms.entropy.item() == 0.0


def test_each_sample_may_have_its_own_timestep() -> None:
    """Bit for bit what each sample gives alone: posterior, forward process and network."""
    schedule = NoiseSchedule(T, K)
    timesteps = torch.tensor([0, 4, T - 1])
    log_x0 = with_mask_row(log_probabilities(torch.randn(3, L, K)))
    tokens = torch.tensor([[0, 3, K, K, 6, 1]]).repeat(3, 1)
    together = posterior(log_x0, tokens, timesteps, schedule)
    clean = tokens.clamp(max=K - 1)
    forward = forward_log_probabilities(clean, timesteps, schedule)
    for i, t in enumerate(timesteps.tolist()):
        assert torch.equal(together[i], posterior(log_x0[i : i + 1], tokens[i : i + 1], t, schedule)[0])
        assert torch.equal(forward[i], forward_log_probabilities(clean[i : i + 1], t, schedule)[0])
    denoiser = tiny_vq_diffusion().denoiser
    noisy, labels = torch.randint(CODES + 1, (3, denoiser.config.length)), torch.tensor([0, 3, 2])
    each = torch.tensor([0, 2, STEPS - 1])
    found = denoiser(noisy, each, labels)
    alone = torch.cat([denoiser(noisy[i : i + 1], int(each[i]), labels[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(found, alone)


def test_noisy_tokens_follow_the_forward_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a schedule that replaces often, which the official one hardly ever does."""
    monkeypatch.setattr(noise_schedule, "MOST", 0.6)
    schedule, count = NoiseSchedule(T, K), 40_000
    timesteps = torch.tensor([0, 5, T - 1])
    torch.manual_seed(0)
    drawn = noisy_tokens(torch.full((3, count), 2), timesteps, schedule)
    expected = forward_log_probabilities(torch.full((3, 1), 2), timesteps, schedule).exp()[:, 0]
    for row, probabilities in zip(drawn, expected, strict=True):
        shares = torch.bincount(row, minlength=K + 1) / count
        spread = (probabilities * (1 - probabilities) / count).sqrt()
        assert ((shares - probabilities).abs() < 4.5 * spread + 1e-6).all()


def test_timesteps_of_a_batch_are_spread_evenly() -> None:
    torch.manual_seed(0)
    assert spread_timesteps(T, T).tolist() == list(range(T))
    drawn = torch.cat([spread_timesteps(3, T) for _ in range(4000)])
    counts = torch.bincount(drawn, minlength=T)
    assert len(counts) == T
    assert (counts / len(drawn) - 1 / T).abs().max() < 0.012


@pytest.mark.parametrize(("timesteps", "length", "calls"), [(100, 64, 25), (100, 64, 64), (10, 16, 1), (10, 9, 4)])
def test_even_shares_reveal_the_whole_map_in_so_many_calls(timesteps: int, length: int, calls: int) -> None:
    shares = even_shares(timesteps, length, calls)
    assert sum(shares) == length
    assert max(shares) - min(share for share in shares if share) <= 1
    made = Inference(prior_rule=2, tokens_per_step=shares).calls(timesteps, length)
    assert [len(each) for each in made] == [1] * calls
    visited = [each[0].network for each in made]
    assert visited[-1] == 0
    assert visited[0] == (timesteps - 1 if calls > 1 else 0)


@pytest.mark.parametrize("calls", [0, 17])
def test_even_shares_refuse_more_calls_than_tokens(calls: int) -> None:
    with pytest.raises(ConfigError, match=rf"from 1 to 16 .*got {calls}"):
        even_shares(100, 16, calls)


@pytest.mark.parametrize("condition", ["class", "text"])
def test_starting_weights_say_nothing_yet_and_follow_the_generator(condition: str) -> None:
    config = tiny_config(condition)
    networks = []
    for _ in range(2):
        network = Denoiser(config)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(torch.nan)
        networks.append(initialise(network, torch.Generator().manual_seed(3)))
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[name], second[name]) and first[name].isfinite().all() for name in first)
    torch.manual_seed(0)
    tokens = torch.randint(CODES + 1, (2, config.length))
    given = torch.tensor([0, 3]) if condition == "class" else torch.randn(2, config.text_length, config.text_channels)
    entropy = -networks[0](tokens, 1, given).log_softmax(-1).mean()
    assert entropy.item() == pytest.approx(math.log(CODES), abs=0.01)


def test_neighbouring_timesteps_start_alike() -> None:
    table = waves(100, 33)
    assert table.shape == (100, 33)
    distances = torch.cdist(table, table)
    assert distances.diagonal(1).max() < 0.5 * distances.diagonal(50).min()
    assert table.square().mean().item() == pytest.approx(1.0, abs=0.1)

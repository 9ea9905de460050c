"""Information on enumerated systems: the chain rule, additivity and its error, filters, and the gradient in logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from hguide.errors import ConfigError, ShapeError
from hguide.priors import LowPass
from hguide.theory.band_systems import (
    band_states,
    coupled_bands,
    filtered_signals,
    noisy_channel,
    signals,
    token_channel,
)
from hguide.theory.bottleneck_gradient import (
    coarse_log_posterior,
    detail_information,
    gradient_verdict,
    information_gradient,
)
from hguide.theory.discrete_systems import DiscreteSystem
from hguide.theory.information_bottleneck import (
    additivity_gap,
    additivity_gap_by_dependence,
    additivity_verdict,
    bottleneck_objective,
    chain_rule_error,
    chain_rule_verdict,
    conditional_redundancy,
    data_processing_loss,
    data_processing_verdict,
    detail_left,
    identified_verdict,
    independence_verdict,
    prefix_chain_rule_error,
    prefix_verdict,
    redundancy_verdict,
)

SETTINGS = settings(max_examples=30, deadline=None, derandomize=True)
EXACT = 1e-12


def random_table(seed: int, *states: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    table = torch.rand(*states, generator=draw, dtype=torch.float64) ** 3
    return table / table.sum()


def random_bands(seed: int, coupling: float = 0.3) -> DiscreteSystem:
    """Signals with their bands, and a token that reads the signal through a random channel."""
    system = filtered_signals((0.0, 1.0, 2.0), 3, kept=1, coupling=coupling)
    draw = torch.Generator().manual_seed(seed)
    return system.with_channel("z", "x", torch.randn(27, 4, generator=draw, dtype=torch.float64).mul(2.0).softmax(1))


def test_information_is_that_of_scipy() -> None:
    table = random_table(0, 3, 4, 5)
    system = DiscreteSystem(("a", "b", "c"), table)
    p = table.numpy()
    pair = p.sum(2)
    wanted = entropy(pair.ravel(), np.outer(pair.sum(1), pair.sum(0)).ravel())
    assert system.information("a", "b") == pytest.approx(wanted, abs=EXACT)
    slices = [p[:, :, c] / p[:, :, c].sum() for c in range(5)]
    parts = [entropy(q.ravel(), np.outer(q.sum(1), q.sum(0)).ravel()) for q in slices]
    assert system.information("a", "b", "c") == pytest.approx(float(p.sum((0, 1)) @ parts), abs=EXACT)
    assert system.entropy("b", ("a", "c")) == pytest.approx(entropy(p.ravel()) - entropy(p.sum(1).ravel()), abs=EXACT)
    assert torch.equal(system.marginal("c", "a"), table.sum(1).T)


def test_channels_and_maps_attach_to_the_variables_they_name() -> None:
    system = DiscreteSystem(("a", "b"), random_table(1, 2, 3))
    channel = random_table(2, 3, 2, 4).softmax(-1)
    grown = system.with_channel("c", ("b", "a"), channel)
    wanted = torch.einsum("ab,bac->abc", system.table, channel)
    torch.testing.assert_close(grown.table, wanted, atol=EXACT, rtol=0)
    assert grown.with_map("d", "b", torch.tensor([0, 1, 0])).entropy("d", "b") == pytest.approx(0.0, abs=EXACT)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: DiscreteSystem(("a",), random_table(0, 2, 2)), ShapeError, "1 names .* as many axes"),
        (lambda: DiscreteSystem(("a", "a"), random_table(0, 2, 2)), ConfigError, "different names"),
        (lambda: DiscreteSystem(("a",), torch.tensor([0.5, 0.6]).double()), ConfigError, "sums to 1"),
        (lambda: DiscreteSystem(("a",), torch.tensor([1.5, -0.5]).double()), ConfigError, ">= 0"),
        (lambda: random_bands(0).entropy("hihg"), ConfigError, "unknown variable 'hihg': did you mean 'high'"),
        (lambda: random_bands(0).with_channel("y", "z", noisy_channel(3, 0.1)), ShapeError, r"starts with \(4,\)"),
        (lambda: coupled_bands(0.5, "both"), ConfigError, "token is 'separate'"),
        (lambda: token_channel(signals((0.0, 1.0), 2), signals((0.0, 1.0), 2), 0.0), ConfigError, "noise .* positive"),
    ],
)
def test_bad_systems_say_what_is_wrong(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_the_bands_are_those_of_the_low_pass_prior() -> None:
    """Each low state holds exactly the signals that the prior `lowpass` maps to one map."""
    every = signals((0.0, 1.0, 2.0), 4)
    low = LowPass(0.25)(every.view(-1, 1, 4, 1), (1, 4)).view(-1, 4)
    system = filtered_signals((0.0, 1.0, 2.0), 4, kept=1)
    state = system.table.sum(2).argmax(1)
    same_state = state[:, None] == state[None, :]
    same_map = torch.cdist(low, low) < 1e-4
    assert torch.equal(same_state, same_map)
    assert band_states(every).unique().numel() == 81


@SETTINGS
@given(st.integers(0, 1000), st.floats(0, 2))
def test_the_chain_rule_is_exact_for_filters_that_share_out_the_picture(seed: int, coupling: float) -> None:
    system = random_bands(seed, coupling)
    assert chain_rule_error(system) == pytest.approx(0.0, abs=EXACT)
    whole = system.information("z", "x") - 1.7 * system.information("z", "low")
    assert bottleneck_objective(system, 0.7) == pytest.approx(whole, abs=EXACT)


def test_the_chain_rule_needs_bands_that_determine_the_picture() -> None:
    system = random_bands(0)
    merged = system.with_map("rest", "high", torch.arange(system.marginal("high").shape[0]) % 2)
    part = DiscreteSystem(("x", "low", "high", "z"), merged.marginal("x", "low", "rest", "z"))
    assert chain_rule_error(part) > 0.01


@SETTINGS
@given(st.integers(0, 1000))
def test_given_a_prefix_that_settles_the_low_band_only_detail_is_left(seed: int) -> None:
    """And then a penalty on the redundancy weighs nothing."""
    system = random_bands(seed)
    low = torch.eye(system.marginal("low").shape[0], dtype=torch.float64)
    settled = system.with_channel("prefix", "low", low.repeat_interleave(2, 1) / 2.0)
    assert prefix_chain_rule_error(settled) == pytest.approx(0.0, abs=EXACT)
    assert conditional_redundancy(settled) == pytest.approx(0.0, abs=EXACT)
    vague = system.with_channel("prefix", "low", noisy_channel(low.shape[0], 0.5))
    assert conditional_redundancy(vague) > 1e-3


@SETTINGS
@given(st.integers(0, 1000), st.floats(0, 2))
def test_the_error_of_additivity_is_the_dependence_that_the_token_adds(seed: int, coupling: float) -> None:
    system = random_bands(seed, coupling)
    gap = additivity_gap(system)
    assert gap == pytest.approx(additivity_gap_by_dependence(system), abs=EXACT)
    assert bottleneck_objective(system, 0.5) - bottleneck_objective(system, 0.5, additive=True) == pytest.approx(gap)
    assert -system.information("low", "high") - EXACT <= gap <= system.entropy("low", "z") + EXACT


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.7])
def test_additivity_is_exact_for_bands_independent_with_and_without_the_token(noise: float) -> None:
    assert additivity_gap(coupled_bands(0.0, "separate", noise=noise)) == pytest.approx(0.0, abs=EXACT)
    assert additivity_gap(coupled_bands(0.0, "low", noise=noise)) == pytest.approx(0.0, abs=EXACT)


def test_independent_bands_are_not_enough() -> None:
    """The sum of two fair bits tells one bit of the pair and nothing of either."""
    system = coupled_bands(0.0, "sum", states=2, noise=0.0)
    assert system.information("low", "high") == pytest.approx(0.0, abs=EXACT)
    assert additivity_gap(system) == pytest.approx(math.log(2.0), abs=EXACT)


@pytest.mark.parametrize("token", ["separate", "low"])
def test_dependence_makes_the_additive_form_count_twice(token: str) -> None:
    gaps = [additivity_gap(coupled_bands(dependence, token)) for dependence in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert gaps == sorted(gaps, reverse=True)
    full = coupled_bands(1.0, token)
    assert gaps[-1] == pytest.approx(-full.information("z", "high"), abs=EXACT)


@SETTINGS
@given(st.integers(0, 1000), st.sampled_from(["low", "high"]))
def test_a_filter_adds_no_information(seed: int, band: str) -> None:
    system = random_bands(seed)
    loss = data_processing_loss(system, band)
    assert loss >= -EXACT
    assert loss == pytest.approx(system.information("z", "x", band), abs=EXACT)


def test_a_filter_loses_nothing_where_the_token_reads_it_alone() -> None:
    system = filtered_signals((0.0, 1.0, 2.0), 3, kept=1)
    states = system.marginal("low").shape[0]
    system = system.with_channel("z", "low", noisy_channel(states, 0.3))
    assert data_processing_loss(system, "low") == pytest.approx(0.0, abs=EXACT)
    assert data_processing_loss(system, "high") > 0.1


def test_an_exact_low_band_of_half_the_frequencies_leaves_hardly_any_detail() -> None:
    assert detail_left(filtered_signals((0.0, 1.0), 6, kept=3)) < 0.01
    assert detail_left(filtered_signals((0.0, 1.0), 6, kept=1)) > 0.4
    assert detail_left(filtered_signals((0.0, 1.0), 4, kept=4)) == pytest.approx(0.0, abs=EXACT)


@SETTINGS
@given(st.integers(0, 1000), st.floats(0, 2))
def test_the_gradient_of_information_is_that_of_automatic_differentiation(seed: int, penalty: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(6, generator=draw, dtype=torch.float64).softmax(0)
    low = torch.tensor([0, 0, 1, 1, 1, 2])
    (wanted,) = torch.autograd.grad(detail_information(logits, weights, low, penalty), logits)
    found, natural = information_gradient(logits.detach(), weights, low, penalty)
    torch.testing.assert_close(found, wanted, atol=EXACT, rtol=0)
    if penalty == 0.0:
        contrast = logits.detach().log_softmax(-1) - coarse_log_posterior(logits.detach(), weights, low)
        torch.testing.assert_close(natural, contrast, atol=EXACT, rtol=0)


def test_detail_information_is_the_bottleneck_of_the_enumerated_system() -> None:
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(6, 4, generator=draw, dtype=torch.float64)
    weights = torch.rand(6, generator=draw, dtype=torch.float64).softmax(0)
    low, high = torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([0, 1, 0, 1, 2, 0])
    system = DiscreteSystem(("x",), weights).with_map("low", "x", low).with_map("high", "x", high)
    system = system.with_channel("z", "x", logits.softmax(-1))
    for penalty in (0.0, 0.8):
        found = float(detail_information(logits, weights, low, penalty))
        assert found == pytest.approx(bottleneck_objective(system, penalty), abs=EXACT)


def test_the_update_raises_the_information_about_the_detail() -> None:
    """A step of SSG against the exact coarse posterior, for all pictures at once."""
    draw = torch.Generator().manual_seed(4)
    logits = torch.randn(6, 4, generator=draw, dtype=torch.float64)
    weights, low = torch.full((6,), 1 / 6, dtype=torch.float64), torch.tensor([0, 0, 1, 1, 2, 2])
    _, contrast = information_gradient(logits, weights, low)
    values = [float(detail_information(logits + beta * contrast, weights, low)) for beta in (0.0, 0.1, 0.2, 0.4)]
    assert values == sorted(values)
    assert values[1] - values[0] > 1e-3


def test_verdicts() -> None:
    for check in (chain_rule_verdict, prefix_verdict, data_processing_verdict, gradient_verdict):
        assert check().kind == "holds exactly"
    assert (additivity_verdict().kind, independence_verdict().kind) == ("approximation", "false")
    assert redundancy_verdict().kind == identified_verdict().kind == "vacuous"

"""What the tilt does to entropy and divergence, and where it is a temperature or CFG."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy

from hguide.grids import Scale, Step
from hguide.guidance import CFG, SSG
from hguide.priors import DSE
from hguide.schedules import Constant
from hguide.streams import COND, UNCOND
from hguide.theory.fisher import divergence
from hguide.theory.random_tokens import random_tokens
from hguide.theory.sampling_effect import (
    divergence_series,
    divergence_verdict,
    entropy,
    entropy_change,
    entropy_series,
    entropy_verdict,
    flat_prior_temperature,
    flat_prior_verdict,
    guidance_scale,
    null_prior_verdict,
    temperature_share,
)

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
EXACT = 1e-10


def test_entropy_is_that_of_scipy() -> None:
    logits, contrast = random_tokens(1, 9)
    assert float(entropy(logits)) == pytest.approx(scipy_entropy(softmax(logits[0])), abs=EXACT)
    wanted = scipy_entropy(softmax(logits[0] + 0.3 * contrast[0])) - scipy_entropy(softmax(logits[0]))
    assert float(entropy_change(logits, contrast, 0.3)) == pytest.approx(wanted, abs=EXACT)


@pytest.mark.parametrize("order", [1, 2])
def test_the_entropy_series_leaves_the_next_order(order: int) -> None:
    logits, contrast = random_tokens(16, 8)
    errors = [
        float((entropy_series(logits, contrast, beta, order) - entropy_change(logits, contrast, beta)).abs().max())
        for beta in (0.02, 0.01)
    ]
    assert errors[0] / errors[1] == pytest.approx(2.0 ** (order + 1), rel=0.1)


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("order", [2, 3])
def test_the_divergence_series_leaves_the_next_order(order: int, forward: bool) -> None:
    logits, contrast = random_tokens(16, 8)
    errors = []
    for beta in (0.04, 0.02):
        pair = (logits + beta * contrast, logits)
        exactly = divergence(*pair) if forward else divergence(*reversed(pair))
        errors.append(float((divergence_series(logits, contrast, beta, forward, order) - exactly).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(2.0 ** (order + 1), rel=0.1)


@SETTINGS
@given(st.integers(0, 1000), st.floats(-20, 20), st.floats(-20, 20))
def test_constants_change_nothing(seed: int, shift: float, lift: float) -> None:
    logits, contrast = random_tokens(3, 6, seed=seed)
    for series in (entropy_series, entropy_change, divergence_series):
        torch.testing.assert_close(
            series(logits + shift, contrast + lift, 0.3), series(logits, contrast, 0.3), atol=1e-9, rtol=1e-9
        )
    moved = temperature_share(logits + shift, contrast + lift)
    torch.testing.assert_close(moved, temperature_share(logits, contrast), atol=1e-8, rtol=1e-8)


def test_entropy_can_rise() -> None:
    """Where the prior is surer than the step, SSG flattens: it is not sharpening as such."""
    logits, _ = random_tokens(8, 6)
    surer = 2.0 * logits
    assert bool((entropy_change(logits, logits - surer, 0.3) > 0).all())
    assert bool((entropy_series(logits, logits - surer, 0.3, order=1) > 0).all())


@SETTINGS
@given(st.integers(0, 1000), st.floats(0, 3), st.floats(-0.5, 1.2), st.floats(-5, 5))
def test_a_prior_affine_in_the_logits_is_a_temperature(seed: int, beta: float, kept: float, shift: float) -> None:
    logits, _ = random_tokens(3, 6, seed=seed)
    guided = logits + beta * (logits - (kept * logits + shift))
    wanted = (logits / flat_prior_temperature(beta, kept)).softmax(-1)
    torch.testing.assert_close(guided.softmax(-1), wanted, atol=EXACT, rtol=0)


@pytest.mark.parametrize("gain", ["literal", "amplitude"])
def test_the_literal_gain_turns_repetition_into_a_temperature(gain: str) -> None:
    """A map that does not change over space and repeats the one before: nothing new is said."""
    logits, _ = random_tokens(1, 6)
    method, memory = SSG(Constant(0.5), prior=DSE(gain=gain)), {}
    for k, size in enumerate((13, 16)):
        flat = logits.view(1, 1, 1, 6).expand(1, size, size, 6)
        guided, memory = method.apply({COND: flat}, Step(k, 2, 0, Scale(k, size, size)), memory)
    kept = 13 / 16 if gain == "literal" else 1.0
    wanted = (logits / flat_prior_temperature(0.5, kept)).softmax(-1)
    torch.testing.assert_close(guided[0, 3, 5].softmax(-1)[None], wanted, atol=EXACT, rtol=0)
    assert (gain == "amplitude") == (flat_prior_temperature(0.5, kept) == 1.0)


@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_the_unconditional_stream_as_prior_is_cfg(beta: float) -> None:
    """Both methods run; on equal grids the prior is the identity, so that the map before may be the null stream."""
    given_map, null_map = (each.view(1, 4, 4, 6) for each in random_tokens(16, 6))
    method, memory, steps = SSG(Constant(beta)), {}, [Step(k, 2, 0, Scale(k, 4, 4)) for k in range(2)]
    for step, each in zip(steps, (null_map, given_map), strict=True):
        guided, memory = method.apply({COND: each}, step, memory)
    wanted, _ = CFG(w=guidance_scale(beta)).apply({COND: given_map, UNCOND: null_map}, steps[1], {})
    torch.testing.assert_close(guided, wanted, atol=EXACT, rtol=0)


def test_the_share_of_a_temperature() -> None:
    logits, contrast = random_tokens(64, 32)
    for affine in (logits, -2.0 * logits + 3.0):
        torch.testing.assert_close(temperature_share(logits, affine), torch.ones(64).double(), atol=EXACT, rtol=0)
    share = temperature_share(logits, contrast)
    assert bool(((share >= 0) & (share <= 1)).all())
    assert float(share.mean()) < 0.5
    paired = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).double()
    swap = torch.tensor([[1.0, -1.0, 1.0, -1.0]]).double()
    assert float(temperature_share(paired, swap)) == pytest.approx(0.0, abs=EXACT)


def test_the_share_is_what_the_best_temperature_explains() -> None:
    """Least squares of D on log q and a constant, weighted by q."""
    logits, contrast = random_tokens(1, 12)
    q = logits[0].softmax(-1)
    design = torch.stack((logits[0], torch.ones(12).double()), 1) * q.sqrt()[:, None]
    aim = contrast[0] * q.sqrt()
    fit = torch.linalg.lstsq(design, aim[:, None]).solution
    left = (aim - (design @ fit)[:, 0]).square().sum()
    spread = (q * (contrast[0] - (q * contrast[0]).sum()) ** 2).sum()
    assert float(temperature_share(logits, contrast)) == pytest.approx(float(1 - left / spread), abs=1e-9)


def test_verdicts() -> None:
    assert guidance_scale(0.7) == 1.7
    assert flat_prior_verdict().kind == null_prior_verdict().kind == "holds exactly"
    assert entropy_verdict().kind == divergence_verdict().kind == "approximation"

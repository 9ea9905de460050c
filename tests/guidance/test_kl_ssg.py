"""SSG under KL(q || q'): its optimum against scipy, its first step, its limits, and options by the contract."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from guided_runs import GRIDS, maps, run, step_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax, softmax

from hguide.errors import ConfigError, NumericalError
from hguide.guidance import SSG, SSGKL, parse
from hguide.guidance.kl_trust_region import reverse_kl_optimum
from hguide.priors import DSE, Nearest
from hguide.schedules import Constant
from hguide.streams import COND
from hguide.testing import check_guidance
from hguide.theory.trust_regions import natural_ascent

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)


def tokens(
    seed: int, count: int = 4, channels: int = 6, spread: float = 2.0, tilt: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits, change = torch.randn(2, count, channels, generator=draw, dtype=torch.float64)
    return spread * logits, tilt * change


@pytest.mark.parametrize("tilt", [0.1, 1.0, 4.0])
def test_the_optimum_is_that_of_a_numerical_optimiser(tilt: float) -> None:
    logits, change = tokens(0, tilt=tilt)
    guided = reverse_kl_optimum(logits, change, 1e-12)
    for base, a, solved in zip(logits.numpy(), change.numpy(), guided.softmax(-1).numpy(), strict=True):
        log_q = log_softmax(base)

        def loss(moved: np.ndarray, a: Any = a, log_q: Any = log_q) -> float:
            log_new = log_softmax(moved)
            return float(np.exp(log_q) @ (log_q - log_new) - np.exp(log_new) @ a)

        found = minimize(loss, base + a, method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(solved, softmax(found.x), atol=1e-5)


@SETTINGS
@given(st.integers(0, 1000), st.integers(1, 40), st.floats(0, 40), st.floats(0, 30))
def test_the_optimum_is_stationary_to_rounding(seed: int, channels: int, spread: float, tilt: float) -> None:
    logits, change = tokens(seed, 3, channels, spread, tilt)
    guided = reverse_kl_optimum(logits, change, 1e-10)
    ratio = (logits.log_softmax(-1) - guided.log_softmax(-1)).exp()
    multiplier = ratio + change
    torch.testing.assert_close(multiplier, multiplier[:, :1].expand_as(multiplier), atol=1e-7, rtol=1e-7)
    assert bool((ratio > 0).all())


@SETTINGS
@given(st.integers(0, 1000), st.integers(2, 300), st.floats(0, 20), st.floats(0, 20))
def test_float32_reaches_the_tolerance_and_the_double_result(
    seed: int, channels: int, spread: float, tilt: float
) -> None:
    logits, change = tokens(seed, 3, channels, spread, tilt)
    wanted = reverse_kl_optimum(logits, change, 1e-10).softmax(-1)
    found = reverse_kl_optimum(logits.float(), change.float(), 1e-5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double().softmax(-1), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_and_vanishing_probabilities(dtype: torch.dtype) -> None:
    """Three tokens share the largest tilt, one of them with a probability that float32 cannot hold."""
    logits = torch.tensor([-200.0, 0.0, 0.0, 1.0], dtype=dtype)
    guided = reverse_kl_optimum(logits, torch.tensor([5.0, 5.0, 5.0, 0.0], dtype=dtype), 1e-5)
    q = softmax([0.0, 0.0, 1.0])
    width = brentq(lambda t: 2 * q[0] / t + q[2] / (t + 5.0) - 1.0, 1e-9, 2.0)
    wanted = torch.tensor([0.0, q[0] / width, q[1] / width, q[2] / (width + 5.0)], dtype=torch.float64)
    torch.testing.assert_close(guided.softmax(-1).double(), wanted, atol=2e-5, rtol=0)


def test_an_improbable_token_takes_mass_once_its_tilt_is_above_the_mean_by_one() -> None:
    """1 - sum q / d for a gap d: the price of this direction, which the docstring names."""
    logits = torch.tensor([0.0, -60.0], dtype=torch.float64)
    for tilt, wanted in ((3.0, 2 / 3), (1.25, 0.2), (0.9, 0.0)):
        guided = reverse_kl_optimum(logits, torch.tensor([0.0, tilt], dtype=torch.float64), 1e-12)
        assert float(guided.softmax(-1)[1]) == pytest.approx(wanted, abs=1e-9)


@SETTINGS
@given(st.integers(0, 100), st.floats(-50, 50), st.floats(-50, 50))
def test_constants_pass_through(seed: int, shift: float, lift: float) -> None:
    """A constant on the logits or on the tilt is the same constant on the result."""
    logits, change = tokens(seed)
    guided = reverse_kl_optimum(logits, change, 1e-11)
    moved = reverse_kl_optimum(logits + shift, change + lift, 1e-11)
    torch.testing.assert_close(moved, guided + shift + lift, atol=1e-9, rtol=0)


def test_values_that_are_not_finite_stop() -> None:
    logits = torch.tensor([[0.0, float("nan"), 1.0]])
    with pytest.raises(NumericalError, match="solved to 0.0001.*finite logits"):
        reverse_kl_optimum(logits, torch.ones(1, 3))


def test_its_first_step_is_ssg_and_the_ascent_ends_at_it() -> None:
    """Natural-gradient ascent from l on the objective of each token: second iterate SSG, limit this method."""
    for k in (1, 2, 3):
        logits, previous = maps(k, (COND,))[COND].double(), maps(k - 1, (COND,))[COND].double()
        contrast = logits - DSE().reference(previous, GRIDS[k])
        iterates = natural_ascent(logits, contrast, 0.1, "reverse", 1)
        ssg = run(SSG(Constant(0.1)), streams=(COND,))[k]
        torch.testing.assert_close(iterates[1].float(), ssg, atol=1e-5, rtol=0)
        last = natural_ascent(logits, contrast, 0.1, "reverse", 300, rate=0.5)[-1].softmax(-1)
        solved = run(SSGKL(Constant(0.1), tolerance=1e-5), streams=(COND,))[k].softmax(-1)
        torch.testing.assert_close(solved.double(), last, atol=2e-5, rtol=0)


def test_it_differs_from_ssg_in_second_order() -> None:
    logits, change = tokens(1)
    gaps = []
    for beta in (0.02, 0.01, 0.005):
        guided, linear = reverse_kl_optimum(logits, beta * change, 1e-13), logits + beta * change
        gaps.append(float((guided - linear).abs().max()))
    assert gaps[0] / gaps[1] == pytest.approx(4.0, rel=0.1)
    assert gaps[1] / gaps[2] == pytest.approx(4.0, rel=0.05)


def test_strength_zero_is_the_identity_bit_for_bit() -> None:
    for k, result in enumerate(run(SSGKL(0.0), streams=(COND,))):
        assert torch.equal(result, maps(k, (COND,))[COND])


def test_bits_are_two_states_each() -> None:
    guided = run(SSGKL(Constant(0.3), prior=Nearest(), bits=True, tolerance=1e-5), streams=(COND,))[2]
    logits, previous = maps(2, (COND,))[COND].double(), maps(1, (COND,))[COND].double()
    tilt = 0.3 * (logits - Nearest()(previous, GRIDS[2]))
    for value, a, found in zip(logits.flatten()[:20], tilt.flatten()[:20], guided.flatten()[:20], strict=True):
        one = 1.0 / (1.0 + math.exp(-float(value)))

        def slope(p: float, one: float = one, a: float = float(a)) -> float:
            return a + one / p - (1.0 - one) / (1.0 - p)

        p = brentq(slope, 1e-12, 1.0 - 1e-12, xtol=1e-13)
        assert float(found) == pytest.approx(math.log(p / (1.0 - p)), abs=2e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits_are_solved_in_float32(dtype: torch.dtype) -> None:
    before, now = maps(1, (COND,))[COND].to(dtype), maps(2, (COND,))[COND].to(dtype)
    results = []
    for wide in (False, True):
        memory: Any = {}
        for k, each in ((1, before), (2, now)):
            given_map = each.float() if wide else each
            guided, memory = SSGKL(0.3, prior=Nearest()).apply({COND: given_map}, step_of(k), memory)
        results.append(guided)
    assert results[0].dtype == dtype
    torch.testing.assert_close(results[0], results[1].to(dtype), atol=0, rtol=0)


@pytest.mark.parametrize(
    "text",
    [
        "ssg_kl(0.3, prior=nearest, remember=output)",
        "ssg_kl([0.0, 0.2, 0.1, 1.0], bits=true)",
        "cfg | ssg_kl(remember=mean, decay=0.25, tolerance=0.00001)",
        "cfg + ssg_kl(0.2, stride=2)",
    ],
)
def test_options_pass_the_contract(text: str) -> None:
    check_guidance(parse(text))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SSGKL(-0.1), "SSGKL: strength is a finite number >= 0, got -0.1"),
        (lambda: SSGKL(tolerance=0.0), r"tolerance lies in \[1e-05, 1\), got 0.0"),
        (lambda: SSGKL(tolerance=float("nan"), stride=0), "stride is at least 1, got 0; tolerance lies in"),
    ],
)
def test_bad_options_say_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()

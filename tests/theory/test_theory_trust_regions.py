"""Trust regions in both divergences: optima, first steps, second order, and where none exists."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import softmax
from scipy.stats import entropy

from hguide.errors import NumericalError
from hguide.theory import trust_regions
from hguide.theory.closed_form import gradient
from hguide.theory.fisher import divergence, fisher_matrix, variance_under
from hguide.theory.random_tokens import random_tokens
from hguide.theory.trust_regions import (
    Direction,
    additive_limit,
    expected_objective,
    expected_optimum,
    linear_objective,
    linear_optimum,
    natural_ascent,
    natural_gradient,
    penalty,
)

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
EXACT = 1e-10
BOTH: tuple[Direction, ...] = ("forward", "reverse")


@pytest.mark.parametrize("seed", range(3))
def test_divergence_and_fisher_metric(seed: int) -> None:
    a, b = random_tokens(1, 9, seed=seed)
    assert float(divergence(a, b)) == pytest.approx(entropy(softmax(a[0]), softmax(b[0])), abs=EXACT)
    jacobian = torch.autograd.functional.jacobian(lambda x: x.softmax(-1), a[0])
    torch.testing.assert_close(fisher_matrix(a[0]), jacobian, atol=EXACT, rtol=0)
    assert float(variance_under(a, b)) == pytest.approx(float(b[0] @ jacobian @ b[0]), abs=EXACT)


@pytest.mark.parametrize("direction", BOTH)
@pytest.mark.parametrize("beta", [0.1, 0.7, 2.0])
def test_the_expected_gain_has_the_optimum_of_a_numerical_optimiser(direction: Direction, beta: float) -> None:
    logits, contrast = random_tokens(3, 5)
    solved = expected_optimum(logits, contrast, beta, direction).softmax(-1)
    for base, change, wanted in zip(logits, contrast, solved, strict=True):

        def loss(moved: np.ndarray, base=base, change=change) -> float:
            return -float(expected_objective(torch.from_numpy(moved), base, change, beta, direction))

        found = minimize(loss, base.numpy(), method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(softmax(found.x), wanted.numpy(), atol=2e-5)


@SETTINGS
@given(st.integers(0, 1000), st.floats(0, 3), st.floats(0, 5), st.sampled_from(BOTH))
def test_no_other_logits_do_better(seed: int, beta: float, far: float, direction: Direction) -> None:
    logits, contrast = random_tokens(3, 6, seed=seed)
    best = expected_optimum(logits, contrast, beta, direction)
    other = best + far * random_tokens(3, 6, seed=seed + 1)[1]
    gap = expected_objective(best, logits, contrast, beta, direction)
    gap = gap - expected_objective(other, logits, contrast, beta, direction)
    assert bool((gap >= -EXACT).all())
    if direction == "forward":
        torch.testing.assert_close(gap, divergence(other, best), atol=EXACT, rtol=1e-9)


@SETTINGS
@given(st.integers(0, 1000), st.floats(0, 3), st.sampled_from(BOTH))
def test_the_natural_gradient_is_the_gradient_in_the_fisher_metric(
    seed: int, beta: float, direction: Direction
) -> None:
    logits, contrast = random_tokens(2, 5, seed=seed)
    guided = (logits + 0.5 * random_tokens(2, 5, seed=seed + 1)[1]).requires_grad_()
    (slope,) = torch.autograd.grad(expected_objective(guided, logits, contrast, beta, direction).sum(), guided)
    natural = natural_gradient(guided.detach(), logits, contrast, beta, direction)
    torch.testing.assert_close((fisher_matrix(guided.detach()) @ natural[..., None])[..., 0], slope)
    if direction == "forward":
        assert torch.equal(natural, gradient(guided.detach(), logits, contrast, beta))


@pytest.mark.parametrize("direction", BOTH)
def test_the_first_step_is_ssg_and_the_ascent_converges(direction: Direction) -> None:
    logits, contrast = random_tokens(8, 6)
    ssg = logits + 0.3 * contrast
    torch.testing.assert_close(natural_ascent(logits, contrast, 0.3, direction, 1)[1], ssg, atol=EXACT, rtol=0)
    last = natural_ascent(logits, contrast, 0.3, direction, 2000, rate=0.5)[-1].softmax(-1)
    best = expected_optimum(logits, contrast, 0.3, direction).softmax(-1)
    torch.testing.assert_close(last, best, atol=EXACT, rtol=0)
    torch.testing.assert_close(natural_ascent(logits, contrast, 0.3, "forward", 4)[-1], ssg, atol=EXACT, rtol=0)


@pytest.mark.parametrize("direction", BOTH)
def test_the_fisher_metric_is_the_second_order_of_both(direction: Direction) -> None:
    logits, contrast = random_tokens(16, 8)
    quadratic = 0.5 * variance_under(logits, contrast)
    centred = contrast - (logits.softmax(-1) * contrast).sum(-1, keepdim=True)
    third = (logits.softmax(-1) * centred**3).sum(-1) / (3.0 if direction == "forward" else 6.0)
    left = []
    for size in (0.02, 0.01):
        value = penalty(logits + size * contrast, logits, direction)
        left.append(float((value / size**2 - quadratic).abs().max()))
        torch.testing.assert_close((value / size**2 - quadratic) / size, third, atol=10 * size, rtol=0)
    assert left[0] / left[1] == pytest.approx(2.0, rel=0.1)


@SETTINGS
@given(st.integers(0, 1000), st.integers(2, 9), st.floats(1e-3, 100), st.sampled_from(BOTH))
def test_either_divergence_is_at_most_a_quarter_of_the_squared_distance(
    seed: int, channels: int, size: float, direction: Direction
) -> None:
    logits, contrast = random_tokens(8, channels, seed=seed)
    change = size * contrast
    assert bool((penalty(logits + change, logits, direction) <= 0.25 * change.square().sum(-1) + EXACT).all())


@pytest.mark.parametrize("direction", BOTH)
def test_the_quarter_is_the_best_factor(direction: Direction) -> None:
    even, change = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[1e-3, -1e-3]], dtype=torch.float64)
    ratio = penalty(even + change, even, direction) / change.square().sum(-1)
    assert float(ratio) == pytest.approx(0.25, rel=1e-5)


def test_a_gain_linear_in_logits_is_unbounded_under_the_forward_divergence() -> None:
    logits, contrast = random_tokens(16, 8)
    centred = contrast - contrast.mean(-1, keepdim=True)
    for beta in (1e-3, 1.0):
        for far in (1e3, 1e5):
            value = linear_objective(logits + far * centred, logits, contrast, beta, "forward")
            start = beta * (logits * centred).sum(-1) + beta * far * centred.square().sum(-1)
            assert bool((value >= start + logits.log_softmax(-1).amin(-1) - 1e-6).all())


def test_a_gain_linear_in_logits_under_the_reverse_divergence_adds_to_probabilities() -> None:
    logits, contrast = random_tokens(4, 5, spread=0.5)
    beta = 0.9 * float(additive_limit(logits, contrast).min())
    solved = linear_optimum(logits, contrast, beta).softmax(-1)
    for base, change, wanted in zip(logits, contrast, solved, strict=True):

        def loss(moved: np.ndarray, base=base, change=change) -> float:
            return -float(linear_objective(torch.from_numpy(moved), base, change, beta, "reverse"))

        found = minimize(loss, base.numpy(), method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(softmax(found.x), wanted.numpy(), atol=2e-5)


def test_and_has_no_optimum_beyond_its_limit() -> None:
    logits, contrast = random_tokens(1, 5)
    limit = float(additive_limit(logits, contrast))
    with pytest.raises(NumericalError, match=r"optimum below beta = .* only, got"):
        linear_optimum(logits, contrast, 1.01 * limit)
    centred = contrast - contrast.mean(-1, keepdim=True)
    worst = torch.where(centred < 0.0, logits.softmax(-1) / -centred, torch.inf).argmin(-1)
    away = torch.nn.functional.one_hot(worst, 5) * -1.0
    values = [
        float(linear_objective(logits + far * away.double(), logits, contrast, 1.5 * limit, "reverse"))
        for far in (10.0, 100.0, 1000.0)
    ]
    assert values[0] < values[1] < values[2]
    steady = [
        float(linear_objective(logits + far * away.double(), logits, contrast, 0.5 * limit, "reverse"))
        for far in (10.0, 100.0, 1000.0)
    ]
    assert steady[0] > steady[1] > steady[2]


def test_with_a_vocabulary_of_4096_no_useful_beta_has_an_optimum() -> None:
    assert float(additive_limit(*random_tokens(32, 4096)).max()) < 1e-5


@pytest.mark.parametrize(
    ("check", "kind"),
    [
        ("forward", "holds exactly"),
        ("first_step", "holds exactly"),
        ("bound", "holds exactly"),
        ("reverse", "approximation"),
        ("fisher", "approximation"),
        ("literal_forward", "false"),
        ("literal_reverse", "false"),
    ],
)
def test_verdicts(check: str, kind: str) -> None:
    assert getattr(trust_regions, f"{check}_verdict")().kind == kind

"""The closed form against a numerical optimiser, its temperature, its reading as MAP, and preprocessed logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from hguide.grids import Scale, Step
from hguide.guidance import SSG
from hguide.priors import DSE
from hguide.schedules import Constant
from hguide.streams import COND
from hguide.theory.closed_form import (
    gradient,
    log_posterior,
    map_verdict,
    maximiser,
    maximiser_verdict,
    objective,
    posterior_mean,
    shortfall,
    strength_of,
)
from hguide.theory.preprocessing import (
    linearised_maximiser,
    linearised_objective,
    orthonormal_verdict,
    preprocessed_objective,
    preprocessing_verdict,
)
from hguide.theory.random_tokens import random_tokens

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
EXACT = 1e-10


@SETTINGS
@given(st.integers(0, 1000), st.floats(-2, 2), st.floats(-5, 5))
def test_objective_gradient_and_shortfall(seed: int, beta: float, far: float) -> None:
    logits, contrast = random_tokens(3, 7, seed=seed)
    guided = (logits + far * random_tokens(3, 7, seed=seed + 1)[0]).requires_grad_()
    value = objective(guided, logits, contrast, beta)
    (wanted,) = torch.autograd.grad(value.sum(), guided)
    torch.testing.assert_close(gradient(guided, logits, contrast, beta), wanted, atol=EXACT, rtol=0)
    best = maximiser(logits, contrast, beta)
    assert float(gradient(best, logits, contrast, beta).abs().max()) < EXACT
    gap = objective(best, logits, contrast, beta) - value
    torch.testing.assert_close(gap, shortfall(guided, logits, contrast, beta), atol=EXACT, rtol=1e-9)


def test_the_maximiser_is_that_of_a_numerical_optimiser_and_the_update_of_ssg() -> None:
    before, now = (torch.randn(1, s, s, 3, generator=torch.Generator().manual_seed(s)).double() for s in (3, 4))
    contrast = now - DSE().reference(before, (4, 4))

    def loss(moved: np.ndarray) -> float:
        return -float(objective(torch.from_numpy(moved), now.flatten(), contrast.flatten(), 0.6))

    found = minimize(loss, np.zeros(48), method="BFGS", options={"gtol": 1e-8}).x
    method, memory = SSG(Constant(0.6)), {}
    for k, each in enumerate((before, now)):
        guided, memory = method.apply({COND: each}, Step(k, 2, 0, Scale(k, *each.shape[1:3])), memory)
    np.testing.assert_allclose(found, guided.flatten().numpy(), atol=1e-5)
    torch.testing.assert_close(maximiser(now, contrast, 0.6), guided, atol=EXACT, rtol=0)


@pytest.mark.parametrize(("strength", "temperature", "variance"), [(1.0, 1.0, 1.0), (0.8, 2.0, 0.5), (0.3, 0.7, 4.0)])
def test_temperature_and_width_only_rescale_beta(strength: float, temperature: float, variance: float) -> None:
    logits, contrast = random_tokens(1, 5)

    def loss(moved: np.ndarray) -> float:
        guided = torch.from_numpy(moved)[None]
        return -float(log_posterior(guided, logits, contrast, strength, temperature, variance))

    found = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
    mean = posterior_mean(logits, contrast, strength, temperature, variance)
    np.testing.assert_allclose(found, mean[0].numpy(), atol=1e-5)
    beta = strength_of(strength, temperature, variance)
    assert beta == pytest.approx(strength * variance / temperature)
    assert torch.equal(mean, maximiser(logits, contrast, beta))


def test_the_samplers_temperature_is_another_one() -> None:
    logits, contrast = random_tokens(4, 6)
    cooled_gain = maximiser(logits, contrast, strength_of(1.0, 2.0)).softmax(-1)
    cooled_sampler = (maximiser(logits, contrast, 1.0) / 2.0).softmax(-1)
    assert float((cooled_gain - cooled_sampler).abs().max()) > 0.05


def test_the_posterior_is_a_gaussian_with_that_mean_and_variance() -> None:
    """By quadrature over one logit."""
    logits, contrast = torch.tensor([0.3]).double(), torch.tensor([-1.2]).double()
    places = torch.linspace(-30, 30, 20001, dtype=torch.float64)
    density = log_posterior(places[:, None], logits.expand(20001, 1), contrast.expand(20001, 1), 0.8, 0.5, 2.0).softmax(
        0
    )
    mean = (density * places).sum()
    assert float(mean) == pytest.approx(float(posterior_mean(logits, contrast, 0.8, 0.5, 2.0)), abs=1e-9)
    assert float((density * (places - mean) ** 2).sum()) == pytest.approx(2.0, abs=1e-9)


def curved(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1)


def test_a_linear_map_has_the_exact_update_at_any_strength() -> None:
    (logits,), (contrast,) = random_tokens(1, 5)
    matrix, metric = random_tokens(5, 5, seed=1)
    guided = linearised_maximiser(logits, contrast, 3.0, matrix.matmul, metric)

    def loss(moved: np.ndarray) -> float:
        return -float(preprocessed_objective(torch.from_numpy(moved), logits, contrast, 3.0, matrix.matmul, metric))

    found = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-8}).x
    np.testing.assert_allclose(found, guided.numpy(), atol=1e-4)


@pytest.mark.parametrize("phi", [curved, torch.tanh])
def test_a_curved_map_has_an_error_of_second_order(phi) -> None:
    (logits,), (contrast,) = random_tokens(1, 5, spread=0.7)
    metric = torch.eye(5, dtype=torch.float64)
    errors = []
    for beta in (0.08, 0.04, 0.02):
        guided = linearised_maximiser(logits, contrast, beta, phi, metric)

        def loss(moved: np.ndarray, beta: float = beta) -> float:
            return -float(preprocessed_objective(torch.from_numpy(moved), logits, contrast, beta, phi, metric))

        def slope(moved: np.ndarray, beta: float = beta) -> np.ndarray:
            leaf = torch.from_numpy(moved).requires_grad_()
            value = -preprocessed_objective(leaf, logits, contrast, beta, phi, metric)
            return torch.autograd.grad(value, leaf)[0].numpy()

        found = minimize(loss, guided.numpy(), jac=slope, method="BFGS", options={"gtol": 1e-11}).x
        errors.append(float(np.abs(found - guided.numpy()).max()))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(4.0, rel=0.2)


def test_the_linearised_objective_is_stationary_at_its_maximiser() -> None:
    (logits,), (contrast,) = random_tokens(1, 5)
    metric = random_tokens(5, 5, seed=1)[1]
    guided = linearised_maximiser(logits, contrast, 0.5, curved, metric)
    slope = torch.autograd.functional.jacobian(
        lambda moved: linearised_objective(moved, logits, contrast, 0.5, curved, metric), guided
    )
    assert float(slope.abs().max()) < EXACT


def test_weights_per_band_do_change_the_update() -> None:
    """An orthonormal transform with a weight for each coefficient: the family's bands."""
    (logits,), (contrast,) = random_tokens(1, 6)
    transform = torch.linalg.qr(random_tokens(6, 6, seed=1)[0])[0]
    weights = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64))
    guided = linearised_maximiser(logits, transform @ contrast, 0.7, transform.matmul, weights)
    wanted = logits + 0.7 * transform.T @ weights @ transform @ contrast
    torch.testing.assert_close(guided, wanted, atol=EXACT, rtol=0)
    assert float((guided - logits - 0.7 * contrast).abs().max()) > 0.1


def test_verdicts() -> None:
    for check in (maximiser_verdict, map_verdict, orthonormal_verdict):
        assert check().kind == "holds exactly"
    assert preprocessing_verdict().kind == "approximation"

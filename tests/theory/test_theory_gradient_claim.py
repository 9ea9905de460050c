"""Appendix C.1: the printed gradient is not that of its objective, and which objective has it."""

from __future__ import annotations

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hguide.theory.closed_form import gradient as gain_gradient
from hguide.theory.fisher import fisher_matrix
from hguide.theory.gradient_claim import (
    alignment,
    anchored_gradient,
    anchored_natural_gradient,
    anchored_objective,
    anchored_verdict,
    contrastive_gradient,
    contrastive_objective,
    printed_gradient,
    printed_verdict,
)
from hguide.theory.random_tokens import random_tokens

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
EXACT = 1e-10


def slope_of(objective, logits, contrast, strength, temperature):
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(objective(leaf, logits, contrast, strength, temperature).sum(), leaf)[0]


@SETTINGS
@given(st.integers(0, 1000), st.floats(0, 3), st.floats(0.3, 3))
def test_the_gradient_passes_through_the_softmax(seed: int, strength: float, temperature: float) -> None:
    logits, contrast = random_tokens(3, 6, seed=seed)
    wanted = slope_of(contrastive_objective, logits, contrast, strength, temperature)
    found = contrastive_gradient(logits, contrast, strength, temperature)
    torch.testing.assert_close(found, wanted, atol=EXACT, rtol=0)


def test_symbolically() -> None:
    """Three tokens: (1/T)(diag q - q q^T)(l + s D) identically, and s D / T it is not.

    In x_i = exp(l'_i / T), so that d/dl'_i = (x_i / T) d/dx_i and the softmax is rational.
    """
    x, y, base, change = (sympy.symbols(f"{name}1:4", positive=True) for name in "xyld")
    strength, temperature = sympy.symbols("s T", positive=True)
    new, old = [each / sum(x) for each in x], [each / sum(y) for each in y]

    def slope(objective, i):
        """d/dl'_i at l' = l, where x = y."""
        return (x[i] / temperature * sympy.diff(objective, x[i])).subs(dict(zip(x, y, strict=True)))

    aim = [logit + strength * d for logit, d in zip(base, change, strict=True)]
    contrastive = sum(q * a for q, a in zip(new, aim, strict=True))
    mean = sum(q * a for q, a in zip(old, aim, strict=True))
    for i in range(3):
        assert sympy.cancel(slope(contrastive, i) - old[i] * (aim[i] - mean) / temperature) == 0
        assert sympy.cancel(slope(contrastive, i) - strength * change[i] / temperature) != 0

    # The repair: s <q', D> - KL(q' || q), both at temperature T.
    divergence = sum(p * (sympy.log(p) - sympy.log(q)) for p, q in zip(new, old, strict=True))
    anchored = strength * sum(p * d for p, d in zip(new, change, strict=True)) - divergence
    mean = sum(q * d for q, d in zip(old, change, strict=True))
    for i in range(3):
        assert sympy.cancel(slope(anchored, i) - strength * old[i] * (change[i] - mean) / temperature) == 0


def test_the_printed_gradient_is_not_even_parallel() -> None:
    logits, contrast = random_tokens(256, 64)
    cosine = alignment(contrastive_gradient(logits, contrast, 1.0), printed_gradient(contrast, 1.0))
    assert float(cosine.mean()) < 0.5
    assert float(cosine.min()) < 0.0


def test_at_strength_zero_the_objective_still_moves_the_logits() -> None:
    """The term in l sharpens; the printed gradient is 0."""
    logits, contrast = random_tokens(8, 6)
    step = contrastive_gradient(logits, contrast, 0.0)
    assert float(step.abs().max()) > 0.1
    assert float(printed_gradient(contrast, 0.0).abs().max()) == 0.0
    assert bool((step.gather(1, logits.argmax(1, keepdim=True)) > 0).all())
    assert float(anchored_gradient(logits, contrast, 0.0).abs().max()) == 0.0


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_it_is_parallel_for_flat_logits(constant: float) -> None:
    _, contrast = random_tokens(8, 6)
    flat = torch.full_like(contrast, constant)
    found = contrastive_gradient(flat, contrast, 0.7)
    wanted = 0.7 * (contrast - contrast.mean(-1, keepdim=True)) / 6.0
    torch.testing.assert_close(found, wanted, atol=EXACT, rtol=0)


@SETTINGS
@given(st.integers(0, 1000), st.floats(0, 3), st.floats(0.3, 3))
def test_the_anchored_objective_repairs_it(seed: int, strength: float, temperature: float) -> None:
    logits, contrast = random_tokens(3, 6, seed=seed)
    slope = slope_of(anchored_objective, logits, contrast, strength, temperature)
    torch.testing.assert_close(anchored_gradient(logits, contrast, strength, temperature), slope, atol=EXACT, rtol=0)
    metric = fisher_matrix(logits / temperature) / temperature**2
    natural = anchored_natural_gradient(contrast, strength, temperature)
    torch.testing.assert_close((metric @ natural[..., None])[..., 0], slope, atol=EXACT, rtol=0)
    if temperature == 1.0:
        assert torch.equal(natural, printed_gradient(contrast, strength))
    best = logits + strength * temperature * contrast
    other = logits + 0.1 * random_tokens(3, 6, seed=seed + 1)[1]
    gap = anchored_objective(best, logits, contrast, strength, temperature)
    assert bool((gap >= anchored_objective(other, logits, contrast, strength, temperature) - EXACT).all())


def test_the_printed_gradient_is_that_of_the_gain_linear_in_logits() -> None:
    logits, contrast = random_tokens(4, 6)
    wanted = gain_gradient(logits, logits, contrast, 0.7 / 1.5)
    torch.testing.assert_close(printed_gradient(contrast, 0.7, 1.5), wanted, atol=EXACT, rtol=0)


def test_the_contrastive_objective_has_no_maximum() -> None:
    """It grows towards all mass on one token and never reaches it."""
    logits, contrast = random_tokens(4, 6)
    aim = logits + contrast
    values = [contrastive_objective(far * aim, logits, contrast, 1.0) for far in (1.0, 4.0, 16.0)]
    assert bool((values[0] < values[1]).all())
    assert bool((values[1] < values[2]).all())
    assert bool((values[2] < aim.amax(-1)).all())


def test_verdicts() -> None:
    assert printed_verdict().kind == "false"
    assert anchored_verdict().kind == "holds exactly"

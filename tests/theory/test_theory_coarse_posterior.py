"""The exact coarse posterior of Gaussian pictures, by other routes, and how near the priors come to it."""

from __future__ import annotations

import pytest
import torch

from hguide.guidance import parse_prior
from hguide.theory.bottleneck_gradient import coarse_log_posterior
from hguide.theory.coarse_posterior import (
    CODES,
    NOISES,
    alignment_order,
    coarse_step,
    posterior_gap,
    posterior_of,
    read,
)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("mean", "variance"), [(0.2, 0.3), (-1.3, 1.0), (0.9, 1e-4)])
def test_the_posterior_is_the_integral_over_the_pixel(mean: float, variance: float, noise: float) -> None:
    places = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    density = (-0.5 * places.square()).softmax(0)
    wanted = (density[:, None] * read(mean + variance**0.5 * places, noise).softmax(-1)).sum(0)
    found = posterior_of(number(mean), number(variance), noise).exp()
    torch.testing.assert_close(found, wanted, atol=3e-4, rtol=0)


def test_variance_of_the_detail_is_noise_of_the_reading() -> None:
    """Away from the last codes: the posterior is flatter by s^2 / (s^2 + variance)."""
    found = posterior_of(number(0.2), number(0.3), 0.6)
    wanted = read(number(0.2), (0.36 + 0.3) ** 0.5)
    inner = CODES.abs() <= 1.0
    torch.testing.assert_close((found - found[6])[inner], (wanted - wanted[6])[inner], atol=0.02, rtol=0)


def test_the_posterior_is_that_of_enumerated_pictures() -> None:
    """Three values of the low band, details on the nodes of a quadrature, every picture listed."""
    lows = torch.tensor([-1.0, 0.1, 0.8], dtype=torch.float64)
    details = torch.linspace(-3, 3, 61, dtype=torch.float64)
    shares = (-0.5 * details.square()).softmax(0)
    logits = read((lows[:, None] + 0.5 * details).flatten(), 0.6)
    weights, states = (shares / 3.0).repeat(3), torch.arange(3).repeat_interleave(61)
    wanted = coarse_log_posterior(logits, weights, states)[::61].exp()
    spread = float((shares * details.square()).sum()) * 0.25
    found = posterior_of(lows, torch.full((3,), spread, dtype=torch.float64), 0.6).exp()
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)


def test_the_step_before_holds_the_low_band_and_the_posterior_averages_to_the_tokens() -> None:
    step = coarse_step((4, 4), (5, 5), 1.0)
    carried = parse_prior("dse(high=zero, gain=amplitude)")(step.before, (5, 5))
    # The tower rule: tokens and posterior have the same mean, also where the low band is high or low.
    slope = carried[..., -1] - carried[..., 0]
    for chosen in (slope > slope.median(), slope <= slope.median()):
        tokens, posterior = step.logits[chosen].softmax(-1).mean(0), step.posterior[chosen].exp().mean(0)
        torch.testing.assert_close(tokens, posterior, atol=0.03, rtol=0)
    assert float((tokens - step.logits.softmax(-1).mean((0, 1, 2))).abs().max()) > 0.05


def test_dse_is_nearer_than_linear_and_linear_than_nearest() -> None:
    for noise in NOISES:
        for pair in (((2, 2), (3, 3)), ((4, 4), (5, 5)), ((6, 6), (8, 8))):
            near, smooth, dse = (posterior_gap(text, *pair, noise) for text in ("nearest", "bilinear", "dse"))
            assert near.alignment < smooth.alignment < dse.alignment < 1.0
            assert near.error > smooth.error > dse.error > 0.0
    # From one position nearest and linear are the same constant, and literal DSE half of it.
    first = [posterior_gap(text, (1, 1), (2, 2), 0.3).alignment for text in ("nearest", "bilinear", "dse")]
    assert first[0] == pytest.approx(first[1])
    assert first[2] > first[1] + 0.1


def test_the_best_gain_is_the_least_squares_one() -> None:
    """No other factor comes nearer to the posterior; for sure tokens it lies below the literal gain."""
    pair = ((4, 4), (5, 5))
    best = posterior_gap("dse(high=zero, gain=amplitude)", *pair, 0.3).best_gain
    errors = [
        posterior_gap(f"dse(high=zero, gain={factor * best * 1.25})", *pair, 0.3).error for factor in (0.8, 1.0, 1.25)
    ]
    assert errors[1] < min(errors[0], errors[2])
    assert 0.0 < best < 4 / 5


@pytest.mark.slow
def test_the_order_of_table_5() -> None:
    for noise in NOISES:
        for gain in ("literal", "amplitude"):
            assert alignment_order(gain, noise).against == (("zero high", "DSE"),)

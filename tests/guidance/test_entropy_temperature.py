"""Entropy-aware temperature: the written-out formula, and its place after the filters."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from guided_runs import maps, step_of

from hguide.errors import ConfigError
from hguide.generate import generate
from hguide.load import load
from hguide.sampling import Sampler
from hguide.streams import COND
from hguide.temperature import EntropyTemperature

ATOL = 1e-6


def by_hand(logits: list[float], t0: float, alpha: float, theta: float) -> float:
    weights = [math.exp(x - max(logits)) for x in logits]
    p = [weight / sum(weights) for weight in weights if weight > 0]
    return t0 * math.exp(sum(x * math.log(x) for x in p) / alpha) + theta


def test_the_written_out_formula() -> None:
    logits = maps(2, (COND,))[COND].flatten(1, 2)
    logits[0, 0, 1:3] = -math.inf
    found = EntropyTemperature(2.0, 1.5, 0.7)(logits)
    assert found.shape == (2, 16, 1)
    for sample in range(2):
        for token in range(16):
            wanted = by_hand(logits[sample, token].tolist(), 2.0, 1.5, 0.7)
            assert found[sample, token].item() == pytest.approx(wanted, abs=ATOL)


def test_the_limits() -> None:
    temperature = EntropyTemperature()
    sure = torch.full((1, 1, 9), -math.inf)
    sure[..., 3] = 4.0
    assert temperature(sure).item() == pytest.approx(2.5 + 0.6)
    assert temperature(torch.zeros(1, 1, 4096)).item() == pytest.approx(2.5 * 4096 ** (-1 / 3) + 0.6)
    assert EntropyTemperature(t0=0.0, theta=0.9)(sure).item() == pytest.approx(0.9)


def test_the_sampler_applies_it_to_what_the_filters_kept() -> None:
    logits = maps(2, (COND,))[COND]
    temperature = EntropyTemperature(2.0, 1.5, 0.7)
    plain = Sampler(top_k=3).candidates(logits, step_of(2))
    warm = Sampler(temperature, top_k=3).candidates(logits, step_of(2))
    assert torch.equal(warm.channels, plain.channels)
    torch.testing.assert_close(warm.values, plain.values / temperature(plain.values))
    assert not torch.allclose(temperature(plain.values), temperature(logits.flatten(1, 2)), atol=0.01)


def test_a_run_samples_with_it() -> None:
    images = [generate(load("toy"), 1, sampler=sampler, seeds=[3]) for sampler in (None, Sampler(EntropyTemperature()))]
    assert not torch.equal(*images)
    flat = Sampler(EntropyTemperature(t0=0.0, theta=1.0))
    assert torch.equal(images[0], generate(load("toy"), 1, sampler=flat, seeds=[3]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t0": -1.0, "alpha": 0.0}, "t0 is a finite number >= 0, got -1.0; alpha is positive and finite, got 0.0"),
        ({"theta": math.inf}, "theta is positive and finite"),
    ],
)
def test_bad_options_say_what_is_wrong(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EntropyTemperature(**options)

"""The measured effect of SSG on a model: against the formulas it is read beside."""

from __future__ import annotations

import pytest

import hguide
from hguide.backends.toy import ToyGenerator
from hguide.errors import ConfigError
from hguide.generator import Binary
from hguide.guidance import CFG, IGG, SSG, Identity
from hguide.theory.effect_on_model import effect_on_model


@pytest.mark.parametrize("before", [None, CFG(w=2.0)])
def test_series_come_near_the_measured_change(before) -> None:
    effects = effect_on_model(hguide.load("toy"), [1, 2], [0, 1], SSG(0.05), before)
    generator = hguide.load("toy")
    assert [effect.index for effect in effects] == list(range(1, generator.count))
    for effect in effects:
        assert effect.beta == pytest.approx(0.05 * (1 - effect.index / generator.count))
        assert effect.second == pytest.approx(effect.change, abs=0.02 * abs(effect.first) + 1e-5)
        assert effect.quadratic == pytest.approx(effect.divergence, rel=0.1)
        assert 0.0 <= effect.share[0] <= effect.share[1] <= effect.share[2] <= 1.0 + 1e-12
        assert 0.0 <= effect.rising <= 1.0


def test_steps_where_ssg_is_off_are_left_out() -> None:
    generator = hguide.load("toy")
    effects = effect_on_model(generator, [1], [0], SSG(0.2, start=0.5), Identity())
    assert [effect.index for effect in effects] == list(range(int(0.5 * generator.count), generator.count))


def test_guidance_that_is_not_linear_cannot_be_told_apart() -> None:
    with pytest.raises(ConfigError, match="must be linear"):
        effect_on_model(hguide.load("toy"), [1], [0], SSG(0.2), IGG())


def test_bits_are_refused() -> None:
    with pytest.raises(ConfigError, match="categorical token, but the channels are Binary"):
        effect_on_model(ToyGenerator(channels=Binary(4)), [1], [0], SSG(0.2))

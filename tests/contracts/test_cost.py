"""What a guidance costs, told before anything runs."""

from __future__ import annotations

import copy

import pytest

import hguide
from hguide import COND, UNCOND, Corruption
from hguide.backends.toy import ToyGenerator
from hguide.cost import cost
from hguide.errors import StreamError
from hguide.noise import SeededNoise


def test_predictions_follow_the_steps() -> None:
    toy = ToyGenerator()
    assert cost(toy, "none").predictions == (1, 1, 1, 1, 1)
    assert cost(toy, "cfg(1.5, stop=0.6) | vpg(1.0)").predictions == (1, 4, 4, 2, 2)
    assert cost(toy, "cfg + vpg").streams == 3
    assert str(cost(toy, "cfg | vpg")) == "1 to 4 predictions a step, 4 streams"


def test_the_memory_is_that_of_the_caches_of_all_models() -> None:
    model = hguide.load("landuse-var")
    state = model.begin([1], {COND: 6, UNCOND: 6, COND.corrupted(Corruption(0.1)): 6}, SeededNoise([0]))
    assert model.run_bytes(1, 3).cache == state.cache.nbytes
    one = cost(model, "none").cache_bytes
    lent = cost(model, "cfg | autoguidance", models={"weak": copy.copy(model)})
    assert (lent.streams, lent.cache_bytes) == (4, 4 * one)
    assert max(lent.predictions) == 4
    # A lender that is the model itself adds nothing.
    own = cost(model, "cfg | autoguidance", models={"weak": model})
    assert max(own.predictions) == 2


def test_what_is_not_served_has_no_cost() -> None:
    with pytest.raises(StreamError, match="models has no 'weak'"):
        cost(ToyGenerator(), "autoguidance")

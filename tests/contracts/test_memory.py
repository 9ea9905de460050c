"""Memory predicted before a run, against what the run allocates, and the batch that is chosen from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import hguide
from hguide.errors import ConfigError
from hguide.experiments.bench.memory import peak_bytes
from hguide.experiments.parity.var_model import VARModel
from hguide.guidance import parse
from hguide.memory import RunBytes, automatic_batch_size, free_bytes
from hguide.noise import SeededNoise
from hguide.plan import plan
from hguide.streams import COND, UNCOND

GOLDEN = Path(__file__).parents[1] / "golden" / "var" / "adaln"
GUIDANCE = "cfg(1.5) | ssg(1.0)"


def tiny():
    return VARModel(GOLDEN, json.loads((GOLDEN / "config.json").read_text())).generator


class Sized:
    """A generator that needs 100 bytes and 10 per sample and stream."""

    lockstep, captured = True, None
    device = torch.device("cpu")

    def run_bytes(self, samples, streams):
        return RunBytes(cache=10 * samples * streams, constants=100, step=0, decode=0)


class Untold(Sized):
    def run_bytes(self, samples, streams):
        return None


class OneByOne(Sized):
    lockstep = False


def test_the_peak_is_what_is_held_and_the_larger_moment():
    assert RunBytes(cache=5, constants=2, step=3, decode=4).peak == 11
    assert (RunBytes(1, 2, 3, 4) + RunBytes(10, 20, 30, 40)) == RunBytes(11, 22, 33, 44)


@pytest.mark.parametrize(
    ("generator", "streams", "free", "size"),
    [
        (Sized(), [COND], 1000, 60),  # 0.7 * 1000 = 700 = 100 + 60 * 10
        (Sized(), [COND, UNCOND], 1000, 30),
        (Sized(), [COND], 10**9, 64),
        (Sized(), [COND], 1, 1),
        (Untold(), [COND], 10**9, 16),
        (OneByOne(), [COND], 10**9, 1),
    ],
)
def test_as_many_samples_as_fit(generator, streams, free, size):
    assert automatic_batch_size(generator, streams, wanted=100, free=free) == size


def test_no_more_samples_than_wanted():
    assert automatic_batch_size(Sized(), [COND], wanted=3, free=10**9) == 3


def test_lenders_count():
    weak = COND.by("weak")
    alone = automatic_batch_size(Sized(), [COND], wanted=100, free=1000)
    with_lender = automatic_batch_size(Sized(), [COND, weak], {"weak": Sized()}, wanted=100, free=1000)
    assert (alone, with_lender) == (60, 25)  # 700 = 2 * 100 + 25 * 2 * 10


def test_free_memory_is_known_here():
    assert 1 << 20 < free_bytes(torch.device("cpu")) < 1 << 50
    with pytest.raises(ConfigError, match="free memory of meta is not known here: give batch_size as a number"):
        free_bytes(torch.device("meta"))


def test_the_cache_is_predicted_to_the_byte():
    generator = tiny()
    live = plan(generator, parse(GUIDANCE))
    state = generator.begin([0, 1, 2], live, SeededNoise(range(3)))
    assert generator.run_bytes(3, len(live)).cache == state.cache.nbytes


@pytest.mark.parametrize("batch", [1, 4])
def test_the_predicted_peak_is_that_of_the_run(batch):
    generator = hguide.load("landuse-var")
    predicted = generator.run_bytes(batch, 2).peak
    measured = peak_bytes(lambda: hguide.generate(generator, 3, GUIDANCE, seeds=range(batch)), generator.device)
    assert 0.8 * measured <= predicted <= 1.3 * measured


def test_an_automatic_batch_gives_the_images_of_any_other():
    generator = hguide.load("toy")
    together = hguide.generate(generator, 1, GUIDANCE, seeds=range(20), batch_size="auto")
    assert torch.equal(together, hguide.generate(generator, 1, GUIDANCE, seeds=range(20), batch_size=3))


@pytest.mark.parametrize("size", [0, -1])
def test_other_batch_sizes_are_refused(size):
    with pytest.raises(ConfigError, match=r'batch_size is a whole number from 1, or "auto", got'):
        hguide.generate(hguide.load("toy"), 1, seeds=[0], batch_size=size)

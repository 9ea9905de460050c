"""The contract suites find faults: each broken class below breaks one rule, and is told which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from hguide import Draw, Sampler, Serves, Step, Stream
from hguide.backends.toy import ToyGenerator
from hguide.grids import Grid
from hguide.noise import Noise, SeededNoise
from hguide.priors import LinearPrior, Nearest, Prior
from hguide.schedules import Schedule
from hguide.testing import check_generator, check_prior, check_schedule


class SharedState(ToyGenerator):
    """Keeps its tokens on itself."""

    def begin(self, condition: Sequence[Any], streams: Mapping[Stream, int], noise: Noise, negative: Any = None) -> Any:
        state = super().begin(condition, streams, noise, negative)
        if not hasattr(self, "tokens"):
            self.tokens: list[Tensor] = []
        self.tokens.clear()
        state.tokens = self.tokens
        return state


class OwnRandomness(ToyGenerator):
    """Draws from torch's global generator."""

    def sample(self, state: Any, step: Step, logits: Tensor, sampler: Sampler, weights: Mapping[Stream, float]) -> Draw:
        return Draw(torch.distributions.Categorical(logits=logits).sample())


class SeedIgnored(ToyGenerator):
    """The same noise for all."""

    def begin(self, condition: Sequence[Any], streams: Mapping[Stream, int], noise: Noise, negative: Any = None) -> Any:
        return super().begin(condition, streams, SeededNoise([0] * len(condition)), negative)


class Filtering(ToyGenerator):
    """Filters in place."""

    def sample(self, state: Any, step: Step, logits: Tensor, sampler: Sampler, weights: Mapping[Stream, float]) -> Draw:
        draw = super().sample(state, step, logits, sampler, weights)
        logits.masked_fill_(logits < 0, -10.0)
        return draw


class Double(ToyGenerator):
    """Predicts float64."""

    def predict(
        self, state: Any, step: Step, streams: Sequence[Stream], weights: Mapping[Stream, float]
    ) -> dict[Stream, Tensor]:
        return {s: logits.double() for s, logits in super().predict(state, step, streams, weights).items()}


class Lent(ToyGenerator):
    """Hands out what it goes on using."""

    def predict(
        self, state: Any, step: Step, streams: Sequence[Stream], weights: Mapping[Stream, float]
    ) -> dict[Stream, Tensor]:
        super().predict(state, step, streams, weights)
        return {s: state.raw[s] for s in streams}


class Bright(ToyGenerator):
    """Images beyond 1."""

    def decode(self, state: Any) -> Tensor:
        return super().decode(state) + 0.5


class Leaking(ToyGenerator):
    """The given stream sees whether the null stream is live."""

    def predict(
        self, state: Any, step: Step, streams: Sequence[Stream], weights: Mapping[Stream, float]
    ) -> dict[Stream, Tensor]:
        logits = super().predict(state, step, streams, weights)
        return {s: value + 5.0 * torch.arange(16) * (len(state.last_use) - 1) for s, value in logits.items()}


class Claiming(ToyGenerator):
    """Partial maps without saying so."""

    partial = False


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (SharedState, "runs disturb each other"),
        (OwnRandomness, "changes with others|another image in another batch"),
        (SeedIgnored, "two seeds give the same image"),
        (Filtering, "sample changes the logits"),
        (Double, "logits are torch.float64"),
        (Lent, "not finite at 1, or still its own"),
        (Bright, r"images leave \[0, 1\]"),
        (Leaking, "changes with others"),
        (lambda: Claiming(calls=2), "`partial` is False"),
    ],
)
def test_generator_faults(make: Callable[[], ToyGenerator], message: str) -> None:
    with pytest.raises(Exception, match=message):
        check_generator(make(), 1)


def test_a_generator_without_a_null_stream_passes() -> None:
    class NoNull(ToyGenerator):
        serves = Serves(null=False)

    check_generator(NoNull(), 1)


@dataclass(frozen=True)
class Transposed(LinearPrior):
    """Its matrix is upside down."""

    def matrix(self, source: Grid, target: Grid, step: Step | None = None) -> Tensor:
        return Nearest().matrix(source, target, step).flip(0)

    def __call__(self, logits: Tensor, target: Grid, step: Step | None = None) -> Tensor:
        return Nearest()(logits, target, step)


@dataclass(frozen=True)
class Centring(Prior):
    """Takes the mean over the batch."""

    def __call__(self, logits: Tensor, target: Grid, step: Step | None = None) -> Tensor:
        return Nearest()(logits - logits.mean(0), target, step)


@dataclass(frozen=True)
class Widening(Prior):
    """Forgets the dtype."""

    def __call__(self, logits: Tensor, target: Grid, step: Step | None = None) -> Tensor:
        return Nearest()(logits, target, step).float()


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (Transposed(), "its matrix and its call differ"),
        (Centring(), "mixes samples"),
        (Widening(), "changes the dtype"),
    ],
)
def test_prior_faults(prior: Prior, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_prior(prior)


@dataclass(frozen=True)
class ByGrid(Schedule):
    """Reads the grid."""

    def __call__(self, step: Step) -> float:
        return 1.0 / step.scale.tokens


@dataclass(frozen=True)
class Infinite(Schedule):
    """Divides by zero in the end."""

    def __call__(self, step: Step) -> float:
        return float("inf") if step.index == step.count - 1 else 1.0


@pytest.mark.parametrize(("schedule", "message"), [(ByGrid(), "reads more than"), (Infinite(), "inf at")])
def test_schedule_faults(schedule: Schedule, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_schedule(schedule)

"""The contract suites find faults: each broken class below breaks one rule, and is told which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from hguide import COND, Draw, Sampler, Serves, Step, Stream
from hguide.backends.toy import ToyGenerator
from hguide.grids import Grid
from hguide.guidance import SSG, LinearMethod, Method, Predictor, parse
from hguide.noise import Noise, SeededNoise
from hguide.priors import LinearPrior, Nearest, Prior
from hguide.schedules import Schedule
from hguide.testing import check_generator, check_guidance, check_prior, check_schedule


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


@dataclass(frozen=True)
class AgainstNull(LinearMethod):
    """Right, but not registered."""

    t: float = 0.5

    def changes(self, stream: Stream) -> bool:
        return stream.condition == "given"

    def contrasts(self, stream: Stream, step: Step) -> dict[Stream, float]:
        return {stream.null: self.t}


@dataclass(frozen=True)
class Unnamed(Nearest):
    """A prior that is not registered."""


@dataclass(frozen=True)
class Late(AgainstNull):
    """On a partial map takes a stream that it does not ask for."""

    def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
        other = stream.null if step.positions is None else stream.by("other")
        return f(stream) + self.t * (f(stream) - f(other)), None


def test_a_guidance_that_is_not_registered_has_no_text_form_to_check() -> None:
    check_guidance(AgainstNull())
    check_guidance(AgainstNull() | parse("ssg") + AgainstNull(1.0))


def test_faults_of_a_prior_without_a_name_and_of_a_partial_map() -> None:
    with pytest.raises(AssertionError, match="cannot be read; are its priors and schedules registered.*unknown prior"):
        check_guidance(SSG(prior=Unnamed()))
    with pytest.raises(AssertionError, match=r"takes the stream \(given, of model 'other'\) at step 3"):
        check_guidance(Late())


def test_faults_of_guidances() -> None:
    """Guidances that break one rule each; a suite that passes them would prove nothing."""

    @dataclass(frozen=True)
    class InPlace(Method):
        def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
            return f(stream).add_(1.0), None

    @dataclass(frozen=True)
    class Aliased(Method):
        remembers: ClassVar[bool] = True

        def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
            guided = f(stream) * (1.0 if remembered is None or not self.on(step) else float(remembered.mean()))
            return guided, guided

    @dataclass(frozen=True)
    class Undeclared(Method):
        def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
            return f(stream) + f(stream.null), None

    @dataclass(frozen=True)
    class BatchMean(Method):
        def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
            return f(stream) - f(stream)[0], None

    @dataclass(frozen=True)
    class Unbalanced(LinearMethod):
        def contrasts(self, stream: Stream, step: Step) -> dict[Stream, float]:
            return {stream.null: 1.0} if stream == COND else {}

        def shadow(self, stream: Stream, step: Step) -> dict[Stream, float]:
            return {stream: 1.0, stream.null: -1.0}

    @dataclass(frozen=True)
    class AlwaysOn(Method):
        def acts(self, stream: Stream, step: Step) -> bool:
            return True

        def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
            return f(stream) * 2.0, None

    for broken, message in (
        (InPlace(), "changes the logits"),
        (Aliased(), "lies in what it returned|returned"),
        (Undeclared(), r"takes the stream \(null\) at step 0, which it does not ask for; name it in `needs`"),
        (BatchMean(), "order of the batch"),
        (Unbalanced(), "do not sum to 1"),
        (AlwaysOn(), "identity when off"),
    ):
        with pytest.raises(AssertionError, match=message):
            check_guidance(broken)

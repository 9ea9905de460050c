"""Composition: the identity, chains `a | b` and sums `a + b`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from torch import Tensor

from hguide.errors import ConfigError
from hguide.grids import Step
from hguide.guidance.base import Guidance, Memory, Path, Predictor, combine
from hguide.streams import Stream

__all__ = ["Chain", "Identity", "Sum", "add", "chain"]


@dataclass(frozen=True)
class Identity(Guidance):
    """No guidance: the neutral element of `|` and `+`."""

    linear = True
    partial = True

    def asks(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """The stream itself."""
        return (stream,)

    def weights(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """The stream itself."""
        return {stream: 1.0}

    def bind(self, predictor: Predictor, step: Step, memory: Memory, learned: dict, path: Path = ()) -> Predictor:
        """The predictor as it is."""
        return predictor

    def __str__(self) -> str:
        return "none"


@dataclass(frozen=True)
class Chain(Guidance):
    """`a | b | ...`: each stage guides the predictor that the stages before it made."""

    stages: tuple[Guidance, ...]

    @property
    def linear(self) -> bool:
        """True where every stage is linear."""
        return all(stage.linear for stage in self.stages)

    @property
    def partial(self) -> bool:
        """True where every stage works on partial maps."""
        return all(stage.partial for stage in self.stages)

    def asks(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """What the last stage asks for, each asked through the stages before it."""
        wanted: tuple[Stream, ...] = (stream,)
        for stage in reversed(self.stages):
            wanted = _unique([need for want in wanted for need in stage.asks(want, step)])
        return wanted

    def weights(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """The last stage's weights, each stream spread over the stages before it."""
        return _chain_weights(self.stages, stream, step)

    def bind(self, predictor: Predictor, step: Step, memory: Memory, learned: dict, path: Path = ()) -> Predictor:
        """The linear stages in front as one weighted sum, then stage by stage."""
        front = 0
        while front < len(self.stages) and self.stages[front].linear:
            front += 1
        if front > 1:
            predictor = _bind_linear(self.stages[:front], predictor, step)
        else:
            front = 0
        for place in range(front, len(self.stages)):
            predictor = self.stages[place].bind(predictor, step, memory, learned, (*path, place))
        return predictor

    def __str__(self) -> str:
        return " | ".join(f"({stage})" if isinstance(stage, Sum) else str(stage) for stage in self.stages)


@dataclass(frozen=True)
class Sum(Guidance):
    """`a + b + ...`: the increments of all terms on the same base, l + sum_i (a_i(l) - l)."""

    terms: tuple[Guidance, ...]

    @property
    def linear(self) -> bool:
        """True where every term is linear."""
        return all(term.linear for term in self.terms)

    @property
    def partial(self) -> bool:
        """True where every term works on partial maps."""
        return all(term.partial for term in self.terms)

    def asks(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """What any term asks for."""
        return _unique([need for term in self.terms for need in term.asks(stream, step)])

    def weights(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """1 for the stream, plus what each term adds to it."""
        total: dict[Stream, float] = {}
        for term in self.terms:
            for other, weight in term.weights(stream, step).items():
                if other != stream:
                    total[other] = total.get(other, 0.0) + weight
        return {stream: 1.0 - sum(total.values()), **total}

    def bind(self, predictor: Predictor, step: Step, memory: Memory, learned: dict, path: Path = ()) -> Predictor:
        """The linear terms as one weighted sum, then the increments of the others."""
        bound = [term.bind(predictor, step, memory, learned, (*path, i)) for i, term in enumerate(self.terms)]
        done: dict[Stream, Tensor] = {}

        def guided(stream: Stream) -> Tensor:
            if stream not in done:
                base = predictor(stream)
                linear = [term for term in self.terms if term.linear]
                total = combine(predictor, stream, Sum(tuple(linear)).weights(stream, step)) if linear else base
                for term, better in zip(self.terms, bound, strict=True):
                    if not term.linear:
                        change = better(stream)
                        total = total if change is base else change if total is base else total + (change - base)
                done[stream] = total
            return done[stream]

        return guided

    def __str__(self) -> str:
        return " + ".join(f"({term})" if isinstance(term, Chain) else str(term) for term in self.terms)


def chain(*guidances: Guidance) -> Guidance:
    """`a | b | ...`, flattened, identities left out."""
    stages = [
        stage
        for guidance in guidances
        for stage in (guidance.stages if isinstance(guidance, Chain) else (guidance,))
        if not isinstance(stage, Identity)
    ]
    return _only_or(Chain, stages)


def add(*guidances: Guidance) -> Guidance:
    """`a + b + ...`, flattened, identities left out."""
    terms = [
        term
        for guidance in guidances
        for term in (guidance.terms if isinstance(guidance, Sum) else (guidance,))
        if not isinstance(term, Identity)
    ]
    return _only_or(Sum, terms)


def _only_or(kind: type[Chain] | type[Sum], parts: list[Guidance]) -> Guidance:
    if not all(isinstance(part, Guidance) for part in parts):
        raise ConfigError(f"only guidances can be composed, got {parts!r}.")
    if len(parts) > 1:
        return kind(tuple(parts))
    return parts[0] if parts else Identity()


def _unique(streams: Sequence[Stream]) -> tuple[Stream, ...]:
    return tuple(dict.fromkeys(streams))


def _chain_weights(stages: Sequence[Guidance], stream: Stream, step: Step) -> dict[Stream, float]:
    def spread(weights: dict[Stream, float], stage: Guidance) -> dict[Stream, float]:
        total: dict[Stream, float] = {}
        for through, outer in weights.items():
            for other, inner in stage.weights(through, step).items():
                total[other] = total.get(other, 0.0) + outer * inner
        return total

    return reduce(spread, reversed(stages), {stream: 1.0})


def _bind_linear(stages: Sequence[Guidance], predictor: Predictor, step: Step) -> Predictor:
    done: dict[Stream, Tensor] = {}

    def guided(stream: Stream) -> Tensor:
        if stream not in done:
            done[stream] = combine(predictor, stream, _chain_weights(stages, stream, step))
        return done[stream]

    return guided

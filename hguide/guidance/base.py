"""What a guidance is: a pure map from a predictor (stream -> logits) to a better predictor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from hguide.autocast import no_autocast
from hguide.errors import ConfigError
from hguide.grids import Step
from hguide.registry import Registry
from hguide.streams import COND, Stream

__all__ = ["Guidance", "LinearMethod", "Memory", "Method", "Predictor", "combine", "registry"]

Predictor = Callable[[Stream], Tensor]
Path = tuple[int, ...]
Memory = Mapping[tuple[Path, Stream], Any]
"""What methods remember between steps, keyed by their place in the composition and the stream."""


class Guidance(ABC):
    """A guidance, simple or composed: `a | b` applies b after a, `a + b` adds both increments to the same base."""

    @abstractmethod
    def asks(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """The streams needed to guide `stream` at a step: unique, `stream` first; reads index and count only."""

    @abstractmethod
    def weights(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """The linear weights of the streams; they sum to 1. For a method that is not linear, its linear shadow."""

    @property
    @abstractmethod
    def linear(self) -> bool:
        """True where the guided logits are the weighted sum given by `weights`."""

    @property
    @abstractmethod
    def partial(self) -> bool:
        """True where the guidance works on partial maps."""

    @abstractmethod
    def bind(self, predictor: Predictor, step: Step, memory: Memory, learned: dict, path: Path = ()) -> Predictor:
        """The guided predictor of a step.

        Args:
            predictor: gives the logits of a stream, each computed once.
            step: where in the run.
            memory: of the steps before; only read.
            learned: receives what is to be remembered.
            path: place in the composition.
        """

    def apply(
        self, predictions: Mapping[Stream, Tensor], step: Step, memory: Memory, stream: Stream = COND
    ) -> tuple[Tensor, dict[tuple[Path, Stream], Any]]:
        """Guided logits of one step, the same whether autocast is on or off.

        Args:
            predictions: logits of each stream in `asks(stream, step)`, channel-last.
            step: where in the run.
            memory: as returned by the step before, {} at the first.
            stream: whose logits are guided.

        Returns:
            The guided logits, and the memory for the next step.
        """
        learned: dict[tuple[Path, Stream], Any] = {}
        with no_autocast(predictions[stream].device):
            guided = self.bind(predictions.__getitem__, step, memory, learned)(stream)
        return guided, {**memory, **learned}

    def __or__(self, other: Guidance) -> Guidance:
        from hguide.guidance.compose import chain

        return chain(self, other) if isinstance(other, Guidance) else NotImplemented

    def __add__(self, other: Guidance) -> Guidance:
        from hguide.guidance.compose import add

        return add(self, other) if isinstance(other, Guidance) else NotImplemented


registry: Registry[Guidance] = Registry("guidance", "hguide.guidance")


@dataclass(frozen=True)
class Method(Guidance):
    """One guidance method, on at the steps with int(start * count) <= index < int(stop * count).

    Args:
        start: first part of the run at which the method is on, in [0, 1].
        stop: end of that part, in [0, 1].
    """

    start: float = field(default=0.0, kw_only=True)
    stop: float = field(default=1.0, kw_only=True)

    linear: ClassVar[bool] = False
    partial: ClassVar[bool] = True
    remembers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ConfigError(f"{type(self).__name__}: " + "; ".join(problems) + ".")

    def problems(self) -> list[str]:
        """Everything that is wrong with the options, each in one line; subclasses add theirs."""
        if 0.0 <= self.start <= self.stop <= 1.0:
            return []
        return [f"start and stop are parts of the run with 0 <= start <= stop <= 1, got {self.start} and {self.stop}"]

    def on(self, step: Step) -> bool:
        """Whether the method acts at a step."""
        return int(self.start * step.count) <= step.index < int(self.stop * step.count)

    def changes(self, stream: Stream) -> bool:
        """Whether the method acts on a stream: not where the field it would change is changed already."""
        return True

    def acts(self, stream: Stream, step: Step) -> bool:
        """Whether the method is more than the identity for this stream and step."""
        return self.on(step) and self.changes(stream)

    def needs(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """The contrast streams of an acting method, beside `stream` itself."""
        return ()

    def shadow(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """The linear weights of an acting method."""
        return {stream: 1.0}

    @abstractmethod
    def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
        """Guided logits of `stream`, and what is remembered of it.

        Called where the method acts, and for a method that remembers also where its interval is off. Must not change
        its inputs; what is remembered must not be the returned tensor.

        Args:
            f: logits of a stream, channel-last.
            stream: to guide.
            step: where in the run.
            remembered: what the last call on this stream returned, or None.
        """

    def asks(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """`stream`, then its contrast streams where the method acts."""
        if not self.acts(stream, step):
            return (stream,)
        return (stream, *(other for other in self.needs(stream, step) if other != stream))

    def weights(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """The linear weights, or their shadow."""
        return self.shadow(stream, step) if self.acts(stream, step) else {stream: 1.0}

    def bind(self, predictor: Predictor, step: Step, memory: Memory, learned: dict, path: Path = ()) -> Predictor:
        """The guided predictor of a step; each stream is evaluated once."""
        done: dict[Stream, Tensor] = {}

        def guided(stream: Stream) -> Tensor:
            if stream not in done:
                done[stream] = self._guide(predictor, stream, step, memory, learned, path)
            return done[stream]

        return guided

    def _guide(
        self, predictor: Predictor, stream: Stream, step: Step, memory: Memory, learned: dict, path: Path
    ) -> Tensor:
        remember = self.remembers and self.changes(stream)
        if not remember and not self.acts(stream, step):
            return predictor(stream)
        logits, kept = self.evaluate(predictor, stream, step, memory.get((path, stream)))
        if remember:
            learned[(path, stream)] = kept
        return logits

    def __str__(self) -> str:
        from hguide.guidance.parse import text_of

        return text_of(self)


@dataclass(frozen=True)
class LinearMethod(Method):
    """A method given by its contrasts alone: l' = l + sum_o t_o (l - l_o)."""

    linear: ClassVar[bool] = True

    @abstractmethod
    def contrasts(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """The strength t of each contrast stream, where the method acts."""

    def needs(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """The streams with a contrast other than 0."""
        return tuple(other for other, t in self.contrasts(stream, step).items() if t != 0.0)

    def shadow(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """{stream: 1 + sum t, other: -t}."""
        contrasts = {other: t for other, t in self.contrasts(stream, step).items() if t != 0.0}
        return {stream: 1.0 + sum(contrasts.values()), **{other: -t for other, t in contrasts.items()}}

    def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
        """The weighted sum."""
        return combine(f, stream, self.shadow(stream, step)), None


def combine(f: Predictor, stream: Stream, weights: Mapping[Stream, float]) -> Tensor:
    """The one arithmetic of all linear guidance: l' = l + sum_o t_o (l - l_o), with t_o = -weights[o].

    Written as differences so that equal streams return the input bit for bit. Half-precision logits are combined in
    float32 and returned in their own type.

    Args:
        f: logits of a stream.
        stream: the base.
        weights: linear weights that sum to 1.

    Returns:
        New logits, or those of `stream` themselves where nothing is added.
    """
    base = f(stream)
    contrasts = {other: -weight for other, weight in weights.items() if other != stream and weight != 0.0}
    if not contrasts:
        return base
    (first, t), *rest = contrasts.items()
    if not rest:
        # In half precision lerp computes in float32 too, and rounds once.
        return torch.lerp(f(first).to(base.dtype), base, 1.0 + t)
    wide = base.float() if base.dtype in (torch.float16, torch.bfloat16) else base
    total = torch.lerp(f(first).to(wide.dtype), wide, 1.0 + t)
    for other, t in rest:
        total.add_(wide - f(other).to(wide.dtype), alpha=t)
    return total.to(base.dtype)

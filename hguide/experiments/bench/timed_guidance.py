"""The time a guidance takes inside a run, and the same run without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hguide.experiments.bench.timing import Spans
from hguide.grids import Step
from hguide.guidance import Guidance, Memory, Predictor
from hguide.streams import COND, Stream

__all__ = ["TimedGuidance", "Unguided"]


@dataclass(frozen=True)
class Unguided(Guidance):
    """No guidance, but all streams that another one asks for: its run without its arithmetic.

    Attributes:
        inner: the other guidance.
    """

    inner: Guidance

    @property
    def linear(self) -> bool:
        """As the inner one."""
        return self.inner.linear

    @property
    def partial(self) -> bool:
        """As the inner one."""
        return self.inner.partial

    def asks(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """As the inner one."""
        return self.inner.asks(stream, step)

    def weights(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """As the inner one."""
        return self.inner.weights(stream, step)

    def bind(self, predictor: Predictor, step: Step, memory: Memory, learned: dict, path: Any = ()) -> Predictor:
        """The predictor as it is."""
        return predictor

    def __str__(self) -> str:
        return f"streams of {self.inner}"


@dataclass(frozen=True, eq=False)
class TimedGuidance(Unguided):
    """Another guidance, and the time it takes.

    Attributes:
        spans: receive one stretch per step.
    """

    spans: Spans

    def bind(self, predictor: Predictor, step: Step, memory: Memory, learned: dict, path: Any = ()) -> Predictor:
        """As the inner one."""
        return self.inner.bind(predictor, step, memory, learned, path)

    def apply(
        self, predictions: Mapping[Stream, Tensor], step: Step, memory: Memory, stream: Stream = COND
    ) -> tuple[Tensor, dict[Any, Any]]:
        """As the inner one, timed."""
        self.spans.start()
        result = self.inner.apply(predictions, step, memory, stream)
        self.spans.stop()
        return result

    def __str__(self) -> str:
        return str(self.inner)

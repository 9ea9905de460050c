"""The time a guidance takes inside a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hguide.experiments.bench.timing import Spans
from hguide.grids import Step
from hguide.guidance import Guidance, Memory, Predictor
from hguide.streams import COND, Stream

__all__ = ["TimedGuidance"]


@dataclass(frozen=True, eq=False)
class TimedGuidance(Guidance):
    """Another guidance, and the time it takes.

    Attributes:
        inner: the guidance.
        spans: receive one stretch per step.
    """

    inner: Guidance
    spans: Spans

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

"""The time a guidance takes inside a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hguide.grids import Step
from hguide.guidance import Guidance, Memory, Predictor
from hguide.streams import COND, Stream

__all__ = ["Timed"]


class Timed(Guidance):
    """A guidance that adds up the seconds spent in its arithmetic; everything else is the guidance it holds.

    Args:
        inner: the guidance.
        device: waited for before and after, so that queued work counts where it belongs.
    """

    def __init__(self, inner: Guidance, device: torch.device) -> None:
        self.inner = inner
        self.device = device
        self.seconds = 0.0

    @property
    def linear(self) -> bool:
        """Of the guidance."""
        return self.inner.linear

    @property
    def partial(self) -> bool:
        """Of the guidance."""
        return self.inner.partial

    def asks(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """Of the guidance."""
        return self.inner.asks(stream, step)

    def weights(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """Of the guidance."""
        return self.inner.weights(stream, step)

    def bind(self, predictor: Predictor, step: Step, memory: Memory, learned: dict, path: tuple[int, ...] = ()) -> Any:
        """Of the guidance."""
        return self.inner.bind(predictor, step, memory, learned, path)

    def apply(
        self, predictions: Mapping[Stream, Tensor], step: Step, memory: Memory, stream: Stream = COND
    ) -> tuple[Tensor, dict[Any, Any]]:
        """Of the guidance, timed."""
        synchronize(self.device)
        started = time.perf_counter()
        result = self.inner.apply(predictions, step, memory, stream)
        synchronize(self.device)
        self.seconds += time.perf_counter() - started
        return result

    def __str__(self) -> str:
        return str(self.inner)


def synchronize(device: torch.device) -> None:
    """Wait for the device's queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

"""An exponential decay."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hguide.grids import Step
from hguide.schedules.base import Schedule

__all__ = ["Exponential"]


@dataclass(frozen=True)
class Exponential(Schedule):
    """`s exp(-rate k/K)`: a decay by the factor exp(-rate) over a run; a negative rate grows.

    Args:
        s: the strength at k = 0.
        rate: decay over the whole run, in nats.

    >>> from hguide.grids import Scale
    >>> round(Exponential(1.0, rate=2.0)(Step(index=5, count=10, call=0, scale=Scale(5, 6, 6))), 4)
    0.3679
    """

    s: float = 1.0
    rate: float = 1.0

    def __call__(self, step: Step) -> float:
        """`s exp(-rate k/K)`."""
        return self.s * math.exp(-self.rate * step.index / step.count)

"""The linear decay of SSG."""

from __future__ import annotations

from dataclasses import dataclass

from hguide.grids import Step
from hguide.schedules.base import Schedule

__all__ = ["Linear"]


@dataclass(frozen=True)
class Linear(Schedule):
    """`s (1 - k/K)`: from s at the first step down to s/K at the last, never 0 (SSG, arXiv 2602.05534, section 4.1).

    Args:
        s: the strength at k = 0.

    >>> from hguide.grids import Scale
    >>> Linear(2.0)(Step(index=5, count=10, call=0, scale=Scale(5, 6, 6)))
    1.0
    """

    s: float = 1.0

    def __call__(self, step: Step) -> float:
        """`s (1 - k/K)`."""
        return self.s * (1.0 - step.index / step.count)

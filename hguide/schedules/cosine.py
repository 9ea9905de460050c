"""A cosine decay."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hguide.grids import Step
from hguide.schedules.base import Schedule

__all__ = ["Cosine"]


@dataclass(frozen=True)
class Cosine(Schedule):
    """`s cos(pi k / 2K)`: slow at first, then down to s cos(pi (K-1) / 2K) > 0.

    Args:
        s: the strength at k = 0.

    >>> from hguide.grids import Scale
    >>> round(Cosine(1.0)(Step(index=5, count=10, call=0, scale=Scale(5, 6, 6))), 4)
    0.7071
    """

    s: float = 1.0

    def __call__(self, step: Step) -> float:
        """`s cos(pi k / 2K)`."""
        return self.s * math.cos(math.pi * step.index / (2 * step.count))

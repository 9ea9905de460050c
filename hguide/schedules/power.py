"""A power of the linear decay."""

from __future__ import annotations

from dataclasses import dataclass

from hguide.grids import Step
from hguide.schedules.base import Schedule

__all__ = ["Power"]


@dataclass(frozen=True)
class Power(Schedule):
    """`s (1 - k/K)^exponent`: 0 is constant, 1 is linear, more falls faster, a negative exponent grows.

    Args:
        s: the strength at k = 0.
        exponent: the power of the linear decay.

    >>> from hguide.grids import Scale
    >>> Power(1.0, exponent=2.0)(Step(index=5, count=10, call=0, scale=Scale(5, 6, 6)))
    0.25
    """

    s: float = 1.0
    exponent: float = 2.0

    def __call__(self, step: Step) -> float:
        """`s (1 - k/K)^exponent`."""
        return self.s * (1.0 - step.index / step.count) ** self.exponent

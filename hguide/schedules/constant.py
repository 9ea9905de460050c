"""The same strength at every step."""

from __future__ import annotations

from dataclasses import dataclass

from hguide.grids import Step
from hguide.schedules.base import Schedule

__all__ = ["Constant"]


@dataclass(frozen=True)
class Constant(Schedule):
    """`s` at every step: Infinity's and diffusers' guidance, VPG (arXiv 2605.30317).

    Args:
        s: the strength.

    >>> from hguide.grids import Scale
    >>> Constant(1.5)(Step(index=3, count=10, call=0, scale=Scale(3, 4, 4)))
    1.5
    """

    s: float = 1.0

    def __call__(self, step: Step) -> float:
        """`s`."""
        return float(self.s)

"""The linear ramp of VAR's classifier-free guidance."""

from __future__ import annotations

from dataclasses import dataclass

from hguide.errors import ConfigError
from hguide.grids import Step
from hguide.schedules.base import Schedule

__all__ = ["Ramp"]


@dataclass(frozen=True)
class Ramp(Schedule):
    """`s k / (K-1)`: nothing at the first step, s at the last (guidance of VAR, arXiv 2404.02905, and Switti).

    Args:
        s: the strength at k = K-1.
        hold_last: the last step keeps the weight of the step before it, `s (K-2) / (K-1)`, as in HART
            (arXiv 2410.10812).

    Raises:
        ConfigError: when called in a run of one step.

    >>> from hguide.grids import Scale
    >>> Ramp(3.0)(Step(index=2, count=4, call=0, scale=Scale(2, 3, 3)))
    2.0
    >>> Ramp(3.0, hold_last=True)(Step(index=3, count=4, call=0, scale=Scale(3, 4, 4)))
    2.0
    """

    s: float = 1.0
    hold_last: bool = False

    def __call__(self, step: Step) -> float:
        """`s k / (K-1)`, or with `hold_last` `s min(k, K-2) / (K-1)`."""
        if step.count < 2:
            raise ConfigError("ramp divides by K-1, but this run has K=1 step; use constant.")
        index = min(step.index, step.count - 2) if self.hold_last else step.index
        return self.s * index / (step.count - 1)

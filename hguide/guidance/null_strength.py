"""How the methods that contrast with the null stream are told how strongly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hguide.grids import Step
from hguide.guidance.base import Method
from hguide.schedules import Constant, Ramp, Schedule, strength_at
from hguide.streams import Stream

__all__ = ["NullStrength", "Strength", "strength_problems"]

Strength = float | Schedule | Sequence[float]


@dataclass(frozen=True)
class NullStrength(Method):
    """The strength t of a method that contrasts with the null stream: t from `strength`, or t = w - 1 from `w`.

    Two conventions are in use. `strength` is VAR's: t = s k/(K-1), nothing at the first step, s at the last. `w` is
    that of diffusers and Infinity, u + w (c - u), constant unless scheduled.

    Args:
        strength: s of VAR's convention, 1.5 where neither is given; a number, multiplied by the schedule, or a
            schedule or one number per step used as it is.
        w: in place of `strength`; w = 1 is no guidance.
        schedule: unit schedule of a number; the ramp k/(K-1) for `strength`, constant for `w`.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: both strength and w, or a strength that is not finite.
    """

    strength: Strength | None = None
    w: Strength | None = None
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        for name in ("strength", "w"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.strength is None and self.w is None:
            object.__setattr__(self, "strength", 1.5)
        super().__post_init__()

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = super().problems()
        if self.strength is not None and self.w is not None:
            found.append(f"give strength (VAR's convention) or w (diffusers'), not both: {self.strength!r}, {self.w!r}")
        return [*found, *strength_problems("strength", self.strength), *strength_problems("w", self.w)]

    def changes(self, stream: Stream) -> bool:
        """Only streams under the given condition."""
        return stream.condition == "given"

    def t(self, step: Step) -> float:
        """The strength at a step, 0 for no guidance."""
        if self.w is not None:
            return strength_at(self.w, self.schedule or Constant(), step) - 1.0
        assert self.strength is not None
        return strength_at(self.strength, self.schedule or Ramp(), step)


def strength_problems(name: str, strength: Strength | None) -> list[str]:
    """One line where a number of a strength is not finite."""
    numbers = strength if isinstance(strength, tuple) else (strength,)
    if all(math.isfinite(number) for number in numbers if isinstance(number, int | float)):
        return []
    return [f"{name} is finite, got {strength!r}"]

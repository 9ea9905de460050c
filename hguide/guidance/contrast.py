"""Linear methods with one contrast stream."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from hguide.grids import Step
from hguide.guidance.base import LinearMethod
from hguide.schedules import Constant, Schedule, strength_at
from hguide.streams import Stream

__all__ = ["Contrast"]


@dataclass(frozen=True)
class Contrast(LinearMethod):
    """l' = l + t_k (l - l_contrast), for one contrast stream.

    Subclasses say which stream, and on which streams they act.

    Args:
        strength: a number, multiplied by the schedule, or a schedule or one number per step used as it is.
        schedule: unit schedule of a number; constant by default.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: a strength that is not finite.
    """

    strength: float | Schedule | Sequence[float] = 1.0
    schedule: Schedule = field(default_factory=Constant, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.strength, list):
            object.__setattr__(self, "strength", tuple(self.strength))
        super().__post_init__()

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = super().problems()
        numbers = self.strength if isinstance(self.strength, tuple) else (self.strength,)
        if any(isinstance(number, int | float) and not math.isfinite(number) for number in numbers):
            found.append(f"strength is finite, got {self.strength!r}")
        return found

    @abstractmethod
    def contrast(self, stream: Stream) -> Stream:
        """The contrast of a stream."""

    def contrasts(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """{contrast: t}."""
        return {self.contrast(stream): strength_at(self.strength, self.schedule, step)}

"""Classifier-free guidance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hguide.grids import Step
from hguide.guidance.base import LinearMethod
from hguide.schedules import Constant, Ramp, Schedule, strength_at
from hguide.streams import Stream

__all__ = ["CFG"]

Strength = float | Schedule | Sequence[float]


@dataclass(frozen=True)
class CFG(LinearMethod):
    """Classifier-free guidance: l' = (1 + t) l(given) - t l(null).

    Two conventions are in use. `cfg(s)` is VAR's: t = s k/(K-1), nothing at the first step, s at the last. `cfg(w=w)`
    is that of diffusers and Infinity, u + w (c - u), so t = w - 1, constant unless scheduled.

    Args:
        strength: s; a number, multiplied by the schedule, or a schedule or one number per step used as it is.
            1.5 where neither `strength` nor `w` is given.
        w: in place of `strength`; w = 1 is no guidance.
        schedule: unit schedule of a number; the ramp k/(K-1) for `strength`, constant for `w`.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: both strength and w, or a strength that is not finite.

    Source: arXiv 2207.12598; VAR code (arXiv 2404.02905), `models/var.py`.
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
        for name, value in (("strength", self.strength), ("w", self.w)):
            numbers = value if isinstance(value, tuple) else (value,) if isinstance(value, int | float) else ()
            if not all(math.isfinite(number) for number in numbers):
                found.append(f"{name} is finite, got {value!r}")
        return found

    def changes(self, stream: Stream) -> bool:
        """Only streams under the given condition."""
        return stream.condition == "given"

    def contrasts(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """{null: t}."""
        if self.w is not None:
            return {stream.null: strength_at(self.w, self.schedule or Constant(), step) - 1.0}
        assert self.strength is not None
        return {stream.null: strength_at(self.strength, self.schedule or Ramp(), step)}

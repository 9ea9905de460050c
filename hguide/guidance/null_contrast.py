"""What the methods share that contrast the given condition with the null one."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.grids import Step
from hguide.guidance.base import Method, Predictor
from hguide.schedules import Constant, Ramp, Schedule, strength_at
from hguide.streams import Stream

__all__ = ["NullContrast", "Strength", "strength_problems", "widened"]

Strength = float | Schedule | Sequence[float]


@dataclass(frozen=True)
class NullContrast(Method):
    """A method in place of CFG, with CFG's two conventions of strength: t from `strength`, or t = w - 1 from `w`.

    At t = 0 it is the identity and asks for nothing; its linear shadow is CFG's.

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

    def needs(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """The null stream, where t is not 0."""
        return (stream.null,) if self.t(step) != 0.0 else ()

    def shadow(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """The weights of CFG."""
        t = self.t(step)
        return {stream: 1.0 + t, stream.null: -t} if t != 0.0 else {stream: 1.0}

    @abstractmethod
    def contrast(
        self, given: Float[Tensor, "*place v"], null: Float[Tensor, "*place v"], t: float
    ) -> Float[Tensor, "*place v"]:
        """Guided logits of an acting step.

        Args:
            given: logits under the condition, `(b, h, w, v)` or `(b, n, v)`, at least float32.
            null: the same under the null condition.
            t: strength, not 0.

        Returns:
            New logits.
        """

    def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
        """The contrast, in float32 at least."""
        logits, t = f(stream), self.t(step)
        if t == 0.0:
            return logits, None
        return self.contrast(widened(logits), widened(f(stream.null)), t).to(logits.dtype), None


def strength_problems(name: str, strength: Strength | None) -> list[str]:
    """One line where a number of a strength is not finite."""
    numbers = strength if isinstance(strength, tuple) else (strength,)
    if all(math.isfinite(number) for number in numbers if isinstance(number, int | float)):
        return []
    return [f"{name} is finite, got {strength!r}"]


def widened(logits: Float[Tensor, "*place v"]) -> Float[Tensor, "*place v"]:
    """Half precision as float32, anything wider as it is."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))

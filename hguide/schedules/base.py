"""What a schedule is, and how a strength and a schedule meet."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from hguide.errors import ConfigError
from hguide.grids import Step
from hguide.registry import Registry

__all__ = ["Schedule", "per_step", "registry", "strength_at"]


@dataclasses.dataclass(frozen=True)
class Schedule(ABC):
    """A number for each step of a run.

    Subclasses are frozen dataclasses that construct without arguments, so that a bare name in a guidance text is a
    schedule. Numbers among their fields must be finite.

    Raises:
        ConfigError: a number is NaN or infinite.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            _require_finite(f"{type(self).__name__}({field.name}=...)", value if isinstance(value, tuple) else (value,))

    @abstractmethod
    def __call__(self, step: Step) -> float:
        """The value at `step`; reads `step.index` and `step.count` only."""


registry: Registry[Schedule] = Registry("schedule", "hguide.schedules")


def strength_at(
    strength: int | float | Schedule | Sequence[int | float],
    schedule: Schedule | None,
    step: Step,
) -> float:
    """The strength of a guidance at a step.

    Args:
        strength: a number, multiplied by the unit schedule; or a schedule, or one number per step, used as it is.
        schedule: the method's unit schedule; None is 1 everywhere. Read only where `strength` is a number.
        step: the step of the run.

    Returns:
        strength * schedule(step), strength(step), or strength[step.index].

    Raises:
        ConfigError: the numbers per step are not `step.count` many, or a number is not finite.
    """
    if isinstance(strength, Schedule):
        return strength(step)
    if isinstance(strength, Sequence):
        return per_step("a per-step strength", strength, step)
    _require_finite("a strength", (strength,))
    return float(strength) * (1.0 if schedule is None else schedule(step))


def per_step(what: str, values: Sequence[int | float], step: Step) -> float:
    """`values[step.index]`, where there is one finite value for each of `step.count` steps.

    Raises:
        ConfigError: there are more or fewer values than steps, or one is not finite.
    """
    if len(values) != step.count:
        raise ConfigError(
            f"{what} has {len(values)} values {list(values)}, but this run has {step.count} steps; give one per step."
        )
    _require_finite(what, values)
    return float(values[step.index])


def _require_finite(what: str, values: Sequence[object]) -> None:
    for value in values:
        if isinstance(value, int | float) and not math.isfinite(value):
            raise ConfigError(f"{what} must be finite, got {value!r}.")

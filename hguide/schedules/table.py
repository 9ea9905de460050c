"""One value per step."""

from __future__ import annotations

from dataclasses import dataclass

from hguide.grids import Step
from hguide.schedules.base import Schedule, per_step

__all__ = ["Table"]


@dataclass(frozen=True)
class Table(Schedule):
    """`values[k]`: Infinity's `cfg_list` and `tau_list`, HART's top-k per scale.

    Args:
        values: one number per step (a list is stored as a tuple); empty, the default, is 1 at every step.

    Raises:
        ConfigError: when called in a run whose number of steps is not that of the values.

    >>> from hguide.grids import Scale
    >>> Table((3.0, 2.0, 1.0))(Step(index=1, count=3, call=0, scale=Scale(1, 2, 2)))
    2.0
    """

    values: tuple[float, ...] | list[float] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        super().__post_init__()

    def __call__(self, step: Step) -> float:
        """`values[k]`, or 1 where the table is empty."""
        return per_step("schedule table", self.values, step) if self.values else 1.0

"""The contract of schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from hguide.grids import Scale, Step
from hguide.guidance import parse_schedule, text_of
from hguide.schedules import Schedule, registry
from hguide.testing.expect import expect

__all__ = ["check_schedule"]


def check_schedule(schedule: Schedule, counts: Sequence[int] = (2, 10, 14)) -> None:
    """Check that a schedule is finite, hashable, reads index and count only, and has a text form if registered.

    Args:
        schedule: to check.
        counts: numbers of steps to try.

    Raises:
        AssertionError: names what is not met.
    """
    name = type(schedule).__name__
    hash(schedule)
    for count in counts:
        for k in range(count):
            value = schedule(Step(k, count, 0, Scale(k, 1, 1)))
            expect(isinstance(value, float) and math.isfinite(value), f"{name}: {value!r} at {k} of {count}.")
            elsewhere = Step(k, count, 3, Scale(k, 5, 7), positions=torch.zeros(1, 2, dtype=torch.int64))
            expect(schedule(elsewhere) == value, f"{name}: reads more than index and count at {k} of {count}.")
    if registry.name_of(type(schedule)) is not None:
        expect(parse_schedule(text_of(schedule)) == schedule, f"{name}: {text_of(schedule)} does not parse back.")

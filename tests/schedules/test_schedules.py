"""Schedules against their closed forms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hguide.errors import ConfigError
from hguide.grids import Scale, Step
from hguide.schedules import (
    Constant,
    Cosine,
    Exponential,
    Linear,
    Power,
    Ramp,
    Schedule,
    Table,
    registry,
    strength_at,
)

TOLERANCE = 1e-12
numbers = st.floats(-100, 100)


def step(index: int, count: int) -> Step:
    return Step(index=index, count=count, call=0, scale=Scale(index, index + 1, index + 1))


def values(schedule: Schedule, count: int) -> list[float]:
    return [schedule(step(index, count)) for index in range(count)]


# Written out by hand for K = 4.
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(3.0), [3, 3, 3, 3]),
        (Linear(2.0), [2, 1.5, 1, 0.5]),
        (Cosine(2.0), [2, 1.8477590650225735, 1.4142135623730951, 0.7653668647301796]),
        (Ramp(3.0), [0, 1, 2, 3]),
        (Ramp(3.0, hold_last=True), [0, 1, 2, 2]),
        (Power(2.0, exponent=2.0), [2, 1.125, 0.5, 0.125]),
        (Power(2.0, exponent=0.0), [2, 2, 2, 2]),
        (Exponential(2.0, rate=1.0), [2, 1.5576015661428098, 1.2130613194252668, 0.9447331054820294]),
        (Table((1.0, 5.0, 2.0, 7.0)), [1, 5, 2, 7]),
        (Table(), [1, 1, 1, 1]),
    ],
    ids=str,
)
def test_values(schedule, expected):
    assert values(schedule, 4) == pytest.approx(expected, abs=TOLERANCE)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(s=numbers, count=st.integers(2, 100))
def test_relations(s, count):
    assert values(Power(s, exponent=1.0), count) == pytest.approx(values(Linear(s), count), abs=TOLERANCE)
    assert values(Exponential(s, rate=0.0), count) == values(Constant(s), count)
    assert values(Linear(s), count)[-1] == pytest.approx(s / count, abs=1e-10)
    assert values(Ramp(s), count)[0] == 0.0
    assert values(Ramp(s), count)[-1] == pytest.approx(s, abs=TOLERANCE)
    held = values(Ramp(s, hold_last=True), count)
    assert held[-1] == held[-2] == pytest.approx(s * (count - 2) / (count - 1), abs=1e-10)
    assert held[:-1] == values(Ramp(s), count)[:-1]


@pytest.mark.parametrize("name", ["constant", "cosine", "exponential", "linear", "power", "ramp", "table"])
def test_registered_schedules_construct_hash_and_scale(name):
    cls = registry.get(name)
    schedule = cls()
    assert registry.name_of(cls) == name
    assert schedule == cls()
    assert hash(schedule) == hash(cls())
    if name != "table":
        assert values(cls(2.5), 7) == pytest.approx([2.5 * value for value in values(schedule, 7)], abs=TOLERANCE)


def test_ramp_of_one_step_names_the_remedy():
    with pytest.raises(ConfigError, match=r"divides by K-1.*use constant"):
        Ramp()(step(0, 1))


def test_ramp_of_two_steps_holds_nothing():
    assert values(Ramp(3.0, hold_last=True), 2) == [0.0, 0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("make", [Constant, Linear, Cosine, Ramp, Power, Exponential, lambda x: Table((1.0, x))])
def test_numbers_that_are_not_finite_are_refused(make, bad):
    with pytest.raises(ConfigError, match="must be finite"):
        make(bad)


def test_other_fields_must_be_finite_too():
    with pytest.raises(ConfigError, match=r"Power\(exponent=...\) must be finite"):
        Power(1.0, exponent=math.inf)
    with pytest.raises(ConfigError, match=r"Exponential\(rate=...\) must be finite"):
        Exponential(1.0, rate=math.nan)


def test_table_needs_one_value_per_step():
    with pytest.raises(ConfigError, match=r"table has 2 values \[1.0, 2.0\], but this run has 3 steps"):
        Table((1.0, 2.0))(step(0, 3))


def test_table_stores_a_list_as_tuple():
    assert Table([1.0, 2.0]) == Table((1.0, 2.0))
    assert hash(Table([1.0, 2.0])) == hash(Table((1.0, 2.0)))


@settings(derandomize=True, deadline=None, max_examples=50)
@given(beta=numbers, index=st.integers(0, 9))
def test_a_number_is_multiplied_by_the_unit_schedule(beta, index):
    at = step(index, 10)
    assert strength_at(beta, Linear(), at) == pytest.approx(beta * (1 - index / 10), abs=TOLERANCE)
    assert strength_at(beta, None, at) == beta


def test_schedules_and_lists_are_used_as_they_are():
    at = step(1, 3)
    assert strength_at(Constant(3.0), Linear(), at) == 3.0
    assert strength_at((7, 8.5, 9), Linear(), at) == 8.5
    assert strength_at([7, 8.5, 9], None, at) == 8.5


def test_per_step_strengths_must_fit_the_run():
    with pytest.raises(ConfigError, match=r"2 values .* this run has 3 steps"):
        strength_at((1.0, 2.0), Linear(), step(0, 3))
    with pytest.raises(ConfigError, match="must be finite"):
        strength_at((1.0, math.nan), None, step(0, 2))
    with pytest.raises(ConfigError, match="must be finite"):
        strength_at(math.inf, None, step(0, 2))

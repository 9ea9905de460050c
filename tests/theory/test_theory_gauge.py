"""Gauge invariance of every registered method: the table, and each ground on methods made to fail it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from torch import Tensor

from hguide.grids import Step
from hguide.guidance import Method, Predictor, parse, registry
from hguide.streams import Stream
from hguide.theory.gauge import basis_error, gauge_table, linearity_error, shift_error

LINEAR = ("cfg", "vpg", "ssg", "fdg", "family", "pag", "slg", "seg", "softcfg", "autoguidance")
FIXED = ("igg", "apg", "cfg_zero", "tcfg", "mambo", "rescale")


@dataclass(frozen=True)
class FirstChannel(Method):
    """Linear, and not gauge invariant: one channel is doubled."""

    def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
        logits = f(stream).clone()
        logits[..., 0] *= 2.0
        return logits, None


@dataclass(frozen=True)
class Square(Method):
    """Not linear."""

    def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
        return f(stream).square(), None


@pytest.mark.parametrize("text", [*LINEAR, "ssg(prior=nearest)", "ssg(prior=dse(gain=2.5))", "cfg | vpg | ssg(0.5)"])
def test_linear_methods(text: str) -> None:
    guidance = parse(text)
    assert linearity_error(guidance) < 1e-10
    assert basis_error(guidance) < 1e-10
    assert shift_error(guidance) < 1e-10


@pytest.mark.parametrize("name", FIXED)
def test_fixed_gauges(name: str) -> None:
    method: Any = registry.get(name)()
    for gauge in ("centred", "log_softmax"):
        fixed = replace(method, gauge=gauge)
        assert linearity_error(fixed) > 1e-6
        assert shift_error(fixed) < 1e-10


def test_counterexamples() -> None:
    for name in ("igg", "apg", "cfg_zero", "tcfg", "mambo"):
        method: Any = registry.get(name)()
        assert shift_error(replace(method, gauge="raw")) > 1e-3
    # Standard deviations per token do not see constants, over a map they do.
    rescale: Any = registry.get("rescale")(gauge="raw")
    assert shift_error(rescale) < 1e-10
    assert shift_error(replace(rescale, reduction="map")) > 1e-3


def test_a_linear_method_may_fail() -> None:
    assert linearity_error(FirstChannel()) < 1e-12
    assert basis_error(FirstChannel()) > 0.5
    assert shift_error(FirstChannel()) > 0.01
    assert linearity_error(Square()) > 0.01


def test_the_table_covers_the_registry() -> None:
    rows = gauge_table()
    assert {row.guidance.split("(")[0] for row in rows} == set(registry.names())
    for row in rows:
        assert row.invariant == (row.ground != "counterexample")
        if row.gauge in ("centred", "log_softmax"):
            assert row.invariant, row
    grounds = {row.guidance.split("(")[0]: row.ground for row in rows}
    assert all(grounds[name].startswith("linear") for name in LINEAR)


def test_the_default_of_each_method_that_is_not_linear() -> None:
    # IGG's default is its authors' code; all others fix the gauge.
    assert shift_error(parse("igg")) > 1e-3
    for name in FIXED[1:]:
        assert shift_error(parse(name)) < 1e-10


def test_probabilities_are_compared_not_logits() -> None:
    logits = parse("cfg(w=3.0)")
    assert shift_error(logits, size=50.0) < 1e-9

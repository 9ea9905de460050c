"""Laws of composition, by hypothesis."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from guided_runs import FOUR, Corrupted, maps, run, step_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hguide.guidance import CFG, SSG, Guidance, Identity
from hguide.streams import COND

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)

linear_methods = st.one_of(
    st.builds(CFG, w=st.floats(-2, 5)),
    st.builds(CFG, strength=st.floats(-1, 4)),
    st.builds(Corrupted, strength=st.floats(-1, 2)),
)
methods = st.one_of(linear_methods, st.builds(SSG, strength=st.floats(0, 2)), st.just(Identity()))


@SETTINGS
@given(methods, st.integers(0, 5))
def test_identity_is_neutral(method: Guidance, seed: int) -> None:
    assert Identity() | method == method == method | Identity()
    assert Identity() + method == method == method + Identity()


@SETTINGS
@given(methods, methods, methods, st.integers(0, 5))
def test_chains_are_associative(a: Guidance, b: Guidance, c: Guidance, seed: int) -> None:
    left, right = run((a | b) | c, seed, FOUR), run(a | (b | c), seed, FOUR)
    assert all(torch.equal(x, y) for x, y in zip(left, right, strict=True))


@SETTINGS
@given(methods, methods, st.integers(0, 5))
def test_sums_commute(a: Guidance, b: Guidance, seed: int) -> None:
    for x, y in zip(run(a + b, seed, FOUR), run(b + a, seed, FOUR), strict=True):
        torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-5)


@SETTINGS
@given(linear_methods, linear_methods, st.integers(0, 3))
def test_linear_chains_equal_their_weights_and_stage_by_stage(a: Guidance, b: Guidance, k: int) -> None:
    chain = a | b
    given_maps = maps(k, FOUR)
    guided = chain.apply(given_maps, step_of(k), {})[0]
    weights = chain.weights(COND, step_of(k))
    assert sum(weights.values()) == pytest.approx(1.0)
    assert set(weights) <= set(chain.asks(COND, step_of(k)))
    wanted = sum(weight * given_maps[stream].double() for stream, weight in weights.items())
    torch.testing.assert_close(guided.double(), wanted, atol=1e-3, rtol=1e-4)
    inner = a.bind(given_maps.__getitem__, step_of(k), {}, {})
    staged = b.bind(inner, step_of(k), {}, {})(COND)
    torch.testing.assert_close(guided, staged, atol=1e-3, rtol=1e-4)


@SETTINGS
@given(methods, st.floats(-3, 3), st.integers(0, 5))
def test_linear_methods_do_not_care_about_the_gauge(method: Guidance, shift: float, seed: int) -> None:
    """A constant per token drops out of the softmax of the guided logits."""
    results: list[Tensor] = []
    for shift_by in (0.0, shift):
        memory: Any = {}
        for k in range(4):
            given_maps = {s: m + shift_by * (1 + i) for i, (s, m) in enumerate(maps(k, FOUR, seed).items())}
            guided, memory = method.apply(given_maps, step_of(k), memory)
            results.append(guided.softmax(-1))
    for x, y in zip(results[:4], results[4:], strict=True):
        torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-3)

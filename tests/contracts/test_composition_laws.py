"""Laws of composition over every registered method, by hypothesis, on random float64 logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from guided_runs import GRIDS, step_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hguide import Serves, Step
from hguide.backends.toy import ToyGenerator
from hguide.generate import generate
from hguide.guidance import CFG, IGG, Family, Guidance, Identity, parse, registry
from hguide.streams import COND, UNCOND, Stream

SETTINGS = settings(max_examples=30, deadline=None, derandomize=True)
ROUNDING = {"atol": 1e-9, "rtol": 1e-9}

methods = st.sampled_from(registry.names()).map(lambda name: registry.get(name)())
pairs = st.tuples(methods, methods)
compositions = st.one_of(methods, pairs.map(lambda ab: ab[0] | ab[1]), pairs.map(lambda ab: ab[0] + ab[1]))


class Maps(dict[Stream, Tensor]):
    """Random float64 logits of any stream, noting which are taken."""

    def __init__(self, k: int, seed: int, samples: int = 3) -> None:
        super().__init__()
        self.k, self.seed, self.samples = k, seed, samples
        self.taken: list[Stream] = []

    def __missing__(self, stream: Stream) -> Tensor:
        draw = torch.Generator().manual_seed(self.seed * 100 + self.k + 1000 * sum(str(stream).encode()))
        self[stream] = torch.randn(self.samples, *GRIDS[self.k], 5, generator=draw, dtype=torch.float64)
        return self[stream]

    def __getitem__(self, stream: Stream) -> Tensor:
        self.taken.append(stream)
        return super().__getitem__(stream)


def guided(guidance: Guidance, seed: int = 0, change: Any = None) -> list[Tensor]:
    """A run of four steps; `change(k, stream, logits)` alters what is predicted."""
    memory: Any = {}
    results = []
    for k in range(len(GRIDS)):
        maps = Maps(k, seed)
        for stream in guidance.asks(COND, step_of(k)):
            maps[stream] = maps[stream] if change is None else change(k, stream, maps[stream])
        logits, memory = guidance.apply(maps, step_of(k), memory)
        results.append(logits.clone())
    return results


@SETTINGS
@given(compositions, st.permutations(range(3)), st.integers(0, 3))
def test_samples_do_not_see_each_other(guidance: Guidance, order: list[int], seed: int) -> None:
    moved = guided(guidance, seed, lambda k, stream, logits: logits[order])
    for one, other in zip(guided(guidance, seed), moved, strict=True):
        torch.testing.assert_close(one[order], other, **ROUNDING)


@SETTINGS
@given(compositions, st.integers(0, 3), st.integers(0, 3))
def test_what_is_asked_is_what_is_taken(guidance: Guidance, k: int, seed: int) -> None:
    memory: Any = {}
    for index in range(k + 1):
        maps = Maps(index, seed)
        memory = guidance.apply(maps, step_of(index), memory)[1]
    assert set(maps.taken) == set(guidance.asks(COND, step_of(k)))


@SETTINGS
@given(methods, compositions, st.integers(0, 3))
def test_off_is_neutral(off: Guidance, rest: Guidance, seed: int) -> None:
    idle = replace(off, start=0.0, stop=0.0)  # type: ignore[type-var]
    for guidance in (idle | rest, rest | idle, idle + rest):
        for one, other in zip(guided(guidance, seed), guided(rest, seed), strict=True):
            torch.testing.assert_close(one, other, **ROUNDING)
    assert Identity() | rest == rest == rest + Identity()


@SETTINGS
@given(methods, methods, methods)
def test_chains_of_all_methods_are_associative(a: Guidance, b: Guidance, c: Guidance) -> None:
    """One chain, and so one arithmetic, however it is written."""
    assert (a | b) | c == a | (b | c)


@SETTINGS
@given(methods, methods, st.integers(0, 3))
def test_increments_of_all_methods_commute(a: Guidance, b: Guidance, seed: int) -> None:
    for one, other in zip(guided(a + b, seed), guided(b + a, seed), strict=True):
        torch.testing.assert_close(one, other, **ROUNDING)


GAUGE_FREE = [
    *(name for name in registry.names() if registry.get(name)().linear),
    "ssg",
    "ssg(remember=mean)",
    "fdg",
    "family",
    "family(1.5, source=null, edges=[0.5], bands=[0.5, 1.5])",
]


@SETTINGS
@given(st.lists(st.sampled_from(GAUGE_FREE), min_size=1, max_size=3), st.booleans(), st.integers(0, 3))
def test_linear_methods_do_not_see_a_constant_per_token(texts: list[str], summed: bool, seed: int) -> None:
    """Constants differ between tokens, steps and streams; the distribution over tokens stays."""
    guidance = parse((" + " if summed else " | ").join(texts))

    def shifted(k: int, stream: Stream, logits: Tensor) -> Tensor:
        draw = torch.Generator().manual_seed(7 * k + sum(str(stream).encode()))
        return logits + 10.0 * torch.randn(*logits.shape[:-1], 1, generator=draw, dtype=torch.float64)

    for one, other in zip(guided(guidance, seed), guided(guidance, seed, shifted), strict=True):
        torch.testing.assert_close(one.log_softmax(-1), other.log_softmax(-1), **ROUNDING)


def test_every_linear_method_is_among_them() -> None:
    assert {"autoguidance", "cfg", "pag", "seg", "slg", "softcfg", "vpg"} <= set(GAUGE_FREE)
    assert Family(source="null").linear


class Watched(ToyGenerator):
    """A toy that serves everything, and notes each prediction."""

    serves: ClassVar[Serves] = Serves(
        null=True, corruption=True, perturbations=frozenset({"pag", "slg", "seg", "soft"}), layers=4
    )

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls_made: list[tuple[Step, tuple[Stream, ...]]] = []

    def predict(self, state: Any, step: Step, streams: Any, weights: Any) -> Any:
        self.calls_made.append((step, tuple(streams)))
        return super().predict(state, step, streams, weights)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(compositions)
def test_each_stream_is_predicted_once_per_step(guidance: Guidance) -> None:
    main, weak = Watched(), Watched(seed=9)
    generate(main, 1, guidance, seeds=[0, 1], models={"weak": weak})
    assert [step.index for step, _ in main.calls_made] == list(range(main.count))
    lent = {step.index: streams for step, streams in weak.calls_made}
    assert len(lent) == len(weak.calls_made)
    for step, streams in main.calls_made:
        asked = guidance.asks(COND, step)
        assert streams == tuple(stream for stream in asked if stream.model == "main")
        assert lent.get(step.index, ()) == tuple(stream.by("main") for stream in asked if stream.model == "weak")


sizes = st.tuples(st.integers(1, 4), st.integers(1, 4))


def igg_signal(n: Tensor, index: int = 2) -> Tensor:
    """g of IGG for the contrast n: l' with u = 0, less its factor."""
    step = replace(step_of(index), scale=replace(step_of(index).scale, height=n.shape[1], width=n.shape[2]))
    return IGG(2.0).apply({COND: n, UNCOND: torch.zeros_like(n)}, step, {})[0] / (1.0 + 2.0 * index / 3)


@SETTINGS
@given(sizes, st.integers(0, 50))
def test_igg_of_rows_aligned_with_themselves_is_cfg(size: tuple[int, int], seed: int) -> None:
    """Orthogonal rows, each much longer than sqrt of the temperature."""
    draw = torch.Generator().manual_seed(seed)
    tokens, width = size[0] * size[1], 20
    basis = torch.linalg.qr(torch.randn(2, width, width, generator=draw, dtype=torch.float64))[0][:, :tokens]
    length = 20.0 + 10.0 * torch.rand(2, tokens, 1, generator=draw, dtype=torch.float64)
    n = (length * basis).unflatten(1, size)
    torch.testing.assert_close(igg_signal(n), n, **ROUNDING)
    u = torch.randn(n.shape, generator=draw, dtype=torch.float64)
    step = replace(step_of(3), scale=replace(step_of(3).scale, height=size[0], width=size[1]))
    streams = {COND: u + n, UNCOND: u}
    torch.testing.assert_close(IGG(2.0).apply(streams, step, {})[0], CFG(2.0).apply(streams, step, {})[0], **ROUNDING)


@SETTINGS
@given(sizes, st.integers(0, 50))
def test_igg_of_a_vanishing_contrast_is_the_mean(size: tuple[int, int], seed: int) -> None:
    n = torch.randn(2, *size, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for small in (1e-3, 1e-5):
        mean = (small * n).mean((1, 2), keepdim=True).expand_as(n)
        # The softmax departs from an even one by the squared size of n.
        torch.testing.assert_close(igg_signal(small * n), mean, atol=100 * small**3, rtol=0)


@SETTINGS
@given(st.integers(0, 50), st.floats(1e-3, 1e3))
def test_igg_of_one_token_is_the_identity(seed: int, size: float) -> None:
    n = size * torch.randn(2, 1, 1, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(igg_signal(n), n, rtol=1e-12, atol=0)


@SETTINGS
@given(st.floats(0.05, 0.9), st.integers(0, 20))
def test_igg_gives_a_short_row_the_long_one_it_aligns_with(part: float, seed: int) -> None:
    """The counterexample to "large n is CFG": the rows are as long as one likes."""
    draw = torch.Generator().manual_seed(seed)
    row = torch.randn(9, generator=draw, dtype=torch.float64)
    row = 300.0 * row / row.norm()
    n = torch.stack([row, part * row])[None, None]
    torch.testing.assert_close(igg_signal(n), torch.stack([row, row])[None, None], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", registry.names())
def test_float64_stays_float64(name: str) -> None:
    assert all(logits.dtype == torch.float64 for logits in guided(registry.get(name)()))

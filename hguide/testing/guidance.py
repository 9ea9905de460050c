"""The contract of guidances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hguide.grids import Grid, Scale, Step
from hguide.guidance import Chain, FromCallable, Guidance, Identity, Method, Sum, parse
from hguide.streams import COND, Stream
from hguide.testing.expect import expect

__all__ = ["check_guidance"]

GRIDS: tuple[Grid, ...] = ((1, 1), (2, 3), (4, 4), (5, 6))
WIDTH = 7
Run = list[Tensor]


def check_guidance(guidance: Guidance, grids: Sequence[Grid] = GRIDS) -> None:
    """Check asks, weights, purity, memory, interval, batch order and text form of a guidance.

    Args:
        guidance: to check.
        grids: of the scales of the trial run.

    Raises:
        AssertionError: names what is not met.
    """
    name = str(guidance)
    hash(guidance)
    logits = _Logits(grids)
    guided = _run(guidance, grids, logits)
    _check_order(guidance, grids, logits, guided, name)
    _check_memory(guidance, grids, logits, guided, name)
    _check_off(guidance, grids, logits, name)
    _check_equal_streams(guidance, grids, name)
    if guidance.partial:
        _check_partial(guidance, grids, logits, guided, name)
    if not _has_function(guidance):
        expect(parse(name) == guidance, f"{name}: its text form does not parse back.")


class _Logits:
    """Fixed logits per stream and step, and a count of how often each was taken."""

    def __init__(self, grids: Sequence[Grid], *, equal: bool = False, order: Tensor | None = None) -> None:
        self.grids, self.equal, self.order = grids, equal, order
        self.taken: dict[tuple[int, Stream], int] = {}

    def __call__(self, k: int, stream: Stream) -> Tensor:
        # Stable across processes, which hash() of a string is not.
        seed = k if self.equal else k + 1000 * sum(str(stream).encode())
        logits = torch.randn(3, *self.grids[k], WIDTH, generator=torch.Generator().manual_seed(seed))
        return logits if self.order is None else logits[self.order]


def _step(grids: Sequence[Grid], k: int) -> Step:
    return Step(k, len(grids), 0, Scale(k, *grids[k]))


def _run(guidance: Guidance, grids: Sequence[Grid], logits: _Logits, *, spoil: bool = False) -> Run:
    memory: Any = {}
    results = []
    for k in range(len(grids)):
        step = _step(grids, k)
        asked = guidance.asks(COND, step)
        _check_asks(guidance, step, asked)
        given = {stream: logits(k, stream) for stream in asked}
        before = {stream: tensor.clone() for stream, tensor in given.items()}
        counted: dict[Stream, int] = {}
        guided, memory = guidance.apply(_Counting(given, counted), step, memory)
        for stream, tensor in given.items():
            expect(torch.equal(tensor, before[stream]), f"{guidance}: changes the logits of ({stream}) at step {k}.")
        expect(set(counted) <= set(asked), f"{guidance}: takes streams at step {k} that it does not ask for.")
        wanted = (3, *grids[k], WIDTH)
        expect(tuple(guided.shape) == wanted, f"{guidance}: gives {tuple(guided.shape)} at step {k}, not {wanted}.")
        expect(guided.dtype == torch.float32, f"{guidance}: gives {guided.dtype} at step {k}.")
        results.append(guided.clone())
        if spoil:
            guided.fill_(float("nan"))
    return results


class _Counting(dict[Stream, Tensor]):
    """Notes which streams are taken."""

    def __init__(self, given: dict[Stream, Tensor], counted: dict[Stream, int]) -> None:
        super().__init__(given)
        self.counted = counted

    def __getitem__(self, stream: Stream) -> Tensor:
        self.counted[stream] = self.counted.get(stream, 0) + 1
        return super().__getitem__(stream)


def _check_asks(guidance: Guidance, step: Step, asked: tuple[Stream, ...]) -> None:
    k = step.index
    expect(bool(asked) and asked[0] == COND, f"{guidance}: asks at step {k} do not begin with the stream itself.")
    expect(len(set(asked)) == len(asked), f"{guidance}: asks twice for a stream at step {k}.")
    partial = replace(step, call=2, positions=torch.zeros(1, 1, dtype=torch.int64))
    expect(guidance.asks(COND, partial) == asked, f"{guidance}: what it asks for depends on more than index and count.")
    weights = guidance.weights(COND, step)
    expect(abs(sum(weights.values()) - 1.0) < 1e-9, f"{guidance}: weights {weights} at step {k} do not sum to 1.")
    stray = [str(s) for s, weight in weights.items() if weight != 0.0 and s not in asked]
    expect(not stray, f"{guidance}: weights at step {k} name streams it does not ask for: {stray}.")


def _check_order(guidance: Guidance, grids: Sequence[Grid], logits: _Logits, guided: Run, name: str) -> None:
    order = torch.tensor([2, 0, 1])
    for k, (new, old) in enumerate(zip(_run(guidance, grids, _Logits(grids, order=order)), guided, strict=True)):
        expect(torch.allclose(new, old[order], atol=1e-5), f"{name}: depends on the order of the batch at step {k}.")


def _check_memory(guidance: Guidance, grids: Sequence[Grid], logits: _Logits, guided: Run, name: str) -> None:
    for k, (new, old) in enumerate(zip(_run(guidance, grids, logits, spoil=True), guided, strict=True)):
        expect(torch.equal(new, old), f"{name}: what it remembers lies in what it returned before step {k}.")


def _check_off(guidance: Guidance, grids: Sequence[Grid], logits: _Logits, name: str) -> None:
    if not isinstance(guidance, Method):
        return
    off = replace(guidance, start=0.0, stop=0.0)
    for k, result in enumerate(_run(off, grids, logits)):
        expect(torch.equal(result, logits(k, COND)), f"{name}: is not the identity when off, at step {k}.")
        expect(off.asks(COND, _step(grids, k)) == (COND,), f"{name}: asks for streams when off, at step {k}.")


def _check_equal_streams(guidance: Guidance, grids: Sequence[Grid], name: str) -> None:
    if guidance.linear:
        same = _Logits(grids, equal=True)
        for k, result in enumerate(_run(guidance, grids, same)):
            expect(torch.equal(result, same(k, COND)), f"{name}: equal streams change the logits at step {k}.")


def _check_partial(guidance: Guidance, grids: Sequence[Grid], logits: _Logits, guided: Run, name: str) -> None:
    """The last step on a part of its map gives the same rows; orders differ between the samples."""
    memory: Any = {}
    last = len(grids) - 1
    for k in range(last):
        given = {stream: logits(k, stream) for stream in guidance.asks(COND, _step(grids, k))}
        memory = guidance.apply(given, _step(grids, k), memory)[1]
    tokens = grids[last][0] * grids[last][1]
    places = torch.stack([torch.randperm(tokens, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    places = places[:, : tokens // 2]
    spread = places[..., None].expand(-1, -1, WIDTH)
    step = replace(_step(grids, last), positions=places)
    given = {s: logits(last, s).flatten(1, 2).gather(1, spread) for s in guidance.asks(COND, step)}
    rows, after = guidance.apply(given, step, memory)
    wanted = guided[last].flatten(1, 2).gather(1, spread)
    expect(torch.allclose(rows, wanted, atol=1e-4), f"{name}: a partial map is guided differently from the full one.")
    again, _ = guidance.apply(given, replace(step, call=1), after)
    expect(torch.allclose(again, rows, atol=1e-6), f"{name}: a partial map is remembered.")


def _has_function(guidance: Guidance) -> bool:
    if isinstance(guidance, Chain):
        return any(map(_has_function, guidance.stages))
    if isinstance(guidance, Sum):
        return any(map(_has_function, guidance.terms))
    return isinstance(guidance, FromCallable) or not isinstance(guidance, Method | Identity)

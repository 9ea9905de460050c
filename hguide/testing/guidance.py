"""The contract of guidances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hguide.errors import HGuideError
from hguide.grids import Grid, Scale, Step
from hguide.guidance import Chain, Guidance, Identity, Method, Sum, parse, registry
from hguide.streams import COND, Stream
from hguide.testing.expect import expect

__all__ = ["check_guidance"]

GRIDS: tuple[Grid, ...] = ((1, 1), (2, 3), (4, 4), (5, 6))
WIDTH = 7
Run = list[Tensor]


def check_guidance(guidance: Guidance, grids: Sequence[Grid] = GRIDS) -> None:
    """Check asks, weights, purity, memory, interval, batch order and text form of a guidance.

    The text form is checked where every part is registered; other classes have none.

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
    if _registered(guidance):
        _check_text(guidance, name)


class _Logits:
    """Fixed logits per stream and step."""

    def __init__(self, grids: Sequence[Grid], *, equal: bool = False, order: Tensor | None = None) -> None:
        self.grids, self.equal, self.order = grids, equal, order

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
        given = _Declared(guidance, step, {stream: logits(k, stream) for stream in asked})
        before = {stream: tensor.clone() for stream, tensor in given.items()}
        guided, memory = guidance.apply(given, step, memory)
        for stream, tensor in given.items():
            expect(torch.equal(tensor, before[stream]), f"{guidance}: changes the logits of ({stream}) at step {k}.")
        wanted = (3, *grids[k], WIDTH)
        expect(tuple(guided.shape) == wanted, f"{guidance}: gives {tuple(guided.shape)} at step {k}, not {wanted}.")
        expect(guided.dtype == torch.float32, f"{guidance}: gives {guided.dtype} at step {k}.")
        results.append(guided.clone())
        if spoil:
            guided.fill_(float("nan"))
    return results


class _Declared(dict[Stream, Tensor]):
    """The streams that a guidance asks for; taking another fails with its name."""

    def __init__(self, guidance: Guidance, step: Step, given: dict[Stream, Tensor]) -> None:
        super().__init__(given)
        self.guidance, self.step = guidance, step

    def __missing__(self, stream: Stream) -> Tensor:
        raise AssertionError(
            f"{self.guidance}: takes the stream ({stream}) at step {self.step.index}, which it does not ask for; "
            "name it in `needs`."
        )


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
        asked = guidance.asks(COND, _step(grids, k))
        given = _Declared(guidance, _step(grids, k), {stream: logits(k, stream) for stream in asked})
        memory = guidance.apply(given, _step(grids, k), memory)[1]
    tokens = grids[last][0] * grids[last][1]
    places = torch.stack([torch.randperm(tokens, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    places = places[:, : tokens // 2]
    spread = places[..., None].expand(-1, -1, WIDTH)
    step = replace(_step(grids, last), positions=places)
    rows_of = {s: logits(last, s).flatten(1, 2).gather(1, spread) for s in guidance.asks(COND, step)}
    given = _Declared(guidance, step, rows_of)
    rows, after = guidance.apply(given, step, memory)
    wanted = guided[last].flatten(1, 2).gather(1, spread)
    expect(torch.allclose(rows, wanted, atol=1e-4), f"{name}: a partial map is guided differently from the full one.")
    again, _ = guidance.apply(given, replace(step, call=1), after)
    expect(torch.allclose(again, rows, atol=1e-6), f"{name}: a partial map is remembered.")


def _check_text(guidance: Guidance, name: str) -> None:
    try:
        back = parse(name)
    except HGuideError as error:
        raise AssertionError(
            f"{name}: its text form cannot be read; are its priors and schedules registered? {error}"
        ) from error
    expect(back == guidance, f"{name}: its text form does not parse back.")


def _registered(guidance: Guidance) -> bool:
    if isinstance(guidance, Chain | Sum):
        return all(map(_registered, guidance.stages if isinstance(guidance, Chain) else guidance.terms))
    return isinstance(guidance, Identity) or registry.name_of(type(guidance)) is not None

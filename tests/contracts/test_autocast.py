"""Autocast around a sampling loop changes no guided logits: every guidance, through `apply`, `Guide` and `generate`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import hguide
from hguide.backends.toy import ToyGenerator
from hguide.grids import Scale, Step
from hguide.guidance import Guidance, from_callable, parse, registry
from hguide.priors import DSE, Nearest, extrapolate_rows, operator
from hguide.streams import COND, UNCOND, Stream

GRIDS = ((1, 1), (2, 3), (4, 4), (12, 12))
WIDTH = 33
TEXTS = [
    *registry.names(),
    "apg(w=3.0, momentum=-0.5, radius=2.0, reduction=map, base=null)",
    "igg(2.0, cross=0.5, gauge=log_softmax, cfg=1.0)",
    "cfg | ssg(prior=dse(transform=dft), remember=mean)",
    "fdg(gains=[0.5, 1.0, 2.0], bands=dct)",
    "family(0.5, edges=[0.5], bands=[1.0, 2.0], lags=[0.7, 0.3])",
    "(cfg + tcfg) | ssg_kl",
]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)


def logits_of(k: int, stream: Stream, dtype: torch.dtype) -> Tensor:
    draw = torch.Generator().manual_seed(k + 1000 * sum(str(stream).encode()))
    return (3.0 * torch.randn(2, *GRIDS[k], WIDTH, generator=draw)).to(dtype)


def applied(guidance: Guidance, dtype: torch.dtype, autocast: bool) -> list[Tensor]:
    memory: Any = {}
    results = []
    for k, grid in enumerate(GRIDS):
        step = Step(k, len(GRIDS), 0, Scale(k, *grid))
        given = {stream: logits_of(k, stream, dtype) for stream in guidance.asks(COND, step)}
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            guided, memory = guidance.apply(given, step, memory)
        results.append(guided)
    return results


def guided_by_hand(text: str, dtype: torch.dtype, autocast: bool) -> list[Tensor]:
    guide = hguide.Guide(text, GRIDS)
    results = []
    for k in range(len(GRIDS)):
        cond, uncond = (logits_of(k, stream, dtype).flatten(1, 2) for stream in (COND, UNCOND))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            results.append(guide(cond, uncond, k))
    return results


def two_streams(text: str) -> bool:
    steps = [Step(k, len(GRIDS), 0, Scale(k, *grid)) for k, grid in enumerate(GRIDS)]
    return all(set(parse(text).asks(COND, step)) <= {COND, UNCOND} for step in steps)


@DTYPES
@pytest.mark.parametrize("text", TEXTS)
def test_apply(text: str, dtype: torch.dtype) -> None:
    guidance = parse(text)
    results = zip(applied(guidance, dtype, True), applied(guidance, dtype, False), strict=True)
    for k, (inside, outside) in enumerate(results):
        assert inside.dtype == dtype
        assert torch.equal(inside, outside), k


@DTYPES
@pytest.mark.parametrize("text", [text for text in TEXTS if two_streams(text)])
def test_guide(text: str, dtype: torch.dtype) -> None:
    results = zip(guided_by_hand(text, dtype, True), guided_by_hand(text, dtype, False), strict=True)
    assert all(torch.equal(inside, outside) for inside, outside in results)


def test_a_function_is_kept_from_autocast_too() -> None:
    guidance = from_callable(lambda given, null, step: given * torch.linalg.vecdot(given, null).unsqueeze(-1))
    results = zip(applied(guidance, torch.float32, True), applied(guidance, torch.float32, False), strict=True)
    assert all(torch.equal(inside, outside) for inside, outside in results)


@pytest.mark.parametrize("text", ["tcfg(2.0)", "apg(2.0)", "cfg_zero(2.0)", "mambo(2.0)", "rescale(2.0)"])
def test_generate(text: str) -> None:
    kept: dict[bool, list[Tensor]] = {True: [], False: []}
    for autocast, found in kept.items():
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            hguide.generate(
                ToyGenerator(), 1, text, seeds=[3], on_step=lambda r, found=found: found.append(r.logits.clone())
            )
    assert all(map(torch.equal, kept[True], kept[False]))


def test_a_loop_goes_on_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        applied(parse("tcfg"), torch.float32, False)
        step = Step(1, 2, 0, Scale(1, 2, 3))
        parse("tcfg").apply({s: logits_of(1, s, torch.float32) for s in (COND, UNCOND)}, step, {})
        assert torch.is_autocast_enabled("cpu")
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize("prior", [DSE(), Nearest()])
def test_rows_of_factors(prior: Any) -> None:
    """The rows of a factored prior are a product as well."""
    source, target = (10, 10), (12, 12)
    matrix = operator(prior, source, target, None, torch.device("cpu"), torch.float32)
    previous, places = torch.randn(2, *source, 5), torch.stack([torch.randperm(144)[:20] for _ in range(2)])
    logits = torch.randn(2, 20, 5)
    outside = extrapolate_rows(logits, places, previous, matrix, 0.7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extrapolate_rows(logits, places, previous, matrix, 0.7), outside)

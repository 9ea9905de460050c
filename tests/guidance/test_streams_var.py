"""VAR's corrupted, perturbed and lent streams: against the whole sequence in one dense pass, limits, seeds, memory.

Tolerances: logits of the cached pass against the dense one 1e-4 (float32, sums in another order); a stream beside
others against itself alone 5e-5.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from dense_var import dense_logits, perturbed
from torch import Tensor

from hguide import COND, UNCOND, Corruption, Sampler, Stream
from hguide.backends.var import VAR
from hguide.generator import Draw
from hguide.noise import SeededNoise
from hguide.sampling import Replay

DENSE = {"atol": 1e-4, "rtol": 0}
ALONE = {"atol": 5e-5, "rtol": 0}
GOLDEN = Path(__file__).parents[1] / "golden" / "var" / "adaln"


@dataclass(frozen=True)
class Ran:
    """One run: logits per step and stream, and what it leaned on."""

    logits: list[dict[Stream, Tensor]]
    maps: list[Tensor]
    confidence: Tensor | None
    noise: SeededNoise
    tokens: list[Tensor]


@torch.no_grad()
def ran(var: VAR, streams: Sequence[Stream], seeds: Sequence[int] = (3, 4), tokens: Sequence[Tensor] = ()) -> Ran:
    """A run without guidance that asks for all streams at all steps."""
    noise = SeededNoise(seeds)
    state = var.begin([1, 2, 0][: len(seeds)], dict.fromkeys(streams, var.count - 1), noise)
    sampler = Replay(tokens=list(tokens)) if tokens else Sampler()
    logits, drawn = [], []
    while (step := var.next_step(state)) is not None:
        logits.append(var.predict(state, step, streams, {}))
        draw = var.sample(state, step, logits[-1][streams[0]], sampler, {})
        drawn.append(draw.tokens)
        var.advance(state, step, draw)
    return Ran(logits, state.maps, state.confidence, noise, drawn)


def labels_of(stream: Stream, var: VAR) -> Tensor:
    return torch.tensor([1, 2] if stream.condition == "given" else [var.transformer.config.classes] * 2)


def same_as_dense(var: VAR, stream: Stream, layers: Sequence[int]) -> None:
    found = ran(var, [COND, UNCOND, stream])
    for k in range(var.count):
        with torch.no_grad():
            wanted = dense_logits(
                var, stream, labels_of(stream, var), found.maps, k, found.noise, layers, found.confidence
            )
        torch.testing.assert_close(found.logits[k][stream], wanted, **DENSE)
    clean = COND if stream.condition == "given" else UNCOND
    assert (found.logits[-1][stream] - found.logits[-1][clean]).abs().max() > 0.01


PERTURBED = {
    "pag": (perturbed("pag"), (1,)),
    "pag in two layers": (perturbed("pag", (0, 2)), (0, 2)),
    "slg": (perturbed("slg"), (1,)),
    "slg of the last layer": (perturbed("slg", (2,)), (2,)),
    "seg, mean query": (perturbed("seg", (0, 1, 2), sigma=1e6), (0, 1, 2)),
    "seg, sigma 1": (perturbed("seg", (0, 1, 2), sigma=1.0), (0, 1, 2)),
    "soft": (perturbed("soft", step_norm=1.0).null, (0, 1, 2)),
    "soft, raw": (perturbed("soft", step_norm=0.0).null, (0, 1, 2)),
    "pag under the null condition": (perturbed("pag").null, (1,)),
}


@pytest.mark.parametrize(("stream", "layers"), PERTURBED.values(), ids=PERTURBED.keys())
def test_perturbed_streams_equal_a_dense_pass(var: VAR, stream: Stream, layers: tuple[int, ...]) -> None:
    same_as_dense(var, stream, layers)


@pytest.mark.parametrize("kind", ["pag", "slg", "seg"])
def test_the_middle_third_by_default(deep: VAR, kind: str) -> None:
    options = {"sigma": 2.0} if kind == "seg" else {}
    same_as_dense(deep, perturbed(kind, **options), (2, 3))


MODES = [
    Corruption(0.4),
    Corruption(0.4, queries=True),
    Corruption(0.4, redraw=True),
    Corruption(0.4, redraw=True, queries=True),
]


@pytest.mark.parametrize("corruption", MODES, ids=str)
@pytest.mark.parametrize("model", ["var", "deep"])
def test_corrupted_prefixes_equal_a_dense_pass(
    corruption: Corruption, model: str, request: pytest.FixtureRequest
) -> None:
    same_as_dense(request.getfixturevalue(model), COND.corrupted(corruption), ())


@pytest.mark.parametrize("corruption", MODES, ids=str)
def test_a_corrupted_prefix_in_a_perturbed_pass(var: VAR, corruption: Corruption) -> None:
    same_as_dense(var, perturbed("pag").corrupted(corruption), (1,))
    same_as_dense(var, perturbed("soft", step_norm=1.0).null.corrupted(corruption), (0, 1, 2))


def test_all_streams_at_once_are_what_they_are_alone(var: VAR) -> None:
    corrupted = [COND.corrupted(mode) for mode in MODES]
    streams = [COND, UNCOND, *(stream for stream, _ in PERTURBED.values()), *corrupted, corrupted[0].null]
    together = ran(var, streams)
    for stream in streams:
        # The given stream comes along, since the probability of the tokens is taken from it.
        alone = ran(var, list(dict.fromkeys([COND, stream])), tokens=together.tokens)
        for k in range(var.count):
            torch.testing.assert_close(together.logits[k][stream], alone.logits[k][stream], **ALONE)


def test_streams_without_a_past_are_the_clean_one(var: VAR) -> None:
    streams = [COND, perturbed("pag"), perturbed("seg"), COND.corrupted(MODES[1]), COND.corrupted(MODES[2])]
    first = ran(var, streams).logits[0]
    for stream in streams[1:]:
        torch.testing.assert_close(first[stream], first[COND], **ALONE)


def test_neutral_limits(var: VAR) -> None:
    """Sigma 0, a tiny proportion, and layers that change nothing are the clean pass."""
    idle = copy.deepcopy(var.transformer)
    with torch.no_grad():
        width = 2 * idle.config.width
        idle.blocks[1].ada_lin[1].weight[:width] = 0.0  # both gammas: the block adds nothing
        idle.blocks[1].ada_lin[1].bias[:width] = 0.0
    limits = [
        (var, perturbed("seg", sigma=0.0)),
        (var, COND.corrupted(Corruption(1e-9))),
        (var, COND.corrupted(Corruption(1e-9, redraw=True, queries=True))),
        (VAR(idle, var.tokenizer), perturbed("slg", (1,))),
    ]
    for model, stream in limits:
        found = ran(model, [COND, stream])
        for logits in found.logits:
            torch.testing.assert_close(logits[stream], logits[COND], **ALONE)


def test_soft_values_of_tokens_without_probability_are_whole(var: VAR) -> None:
    soft = perturbed("soft", step_norm=0.0).null
    noise = SeededNoise([3])
    state = var.begin([1], {UNCOND: 3, soft: 3}, noise)
    while (step := var.next_step(state)) is not None:
        logits = var.predict(state, step, (UNCOND, soft), {})
        torch.testing.assert_close(logits[soft], logits[UNCOND], **ALONE)
        tokens = Sampler().categorical(logits[UNCOND], noise, step)
        var.advance(state, step, Draw(tokens, confidence=torch.zeros(tokens.shape)))

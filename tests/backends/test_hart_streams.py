"""HART's streams: the null condition, padding, dropping, and the partial maps of the last scale."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_hart import TOKENS, records_of, text, tiny_hart
from torch import Tensor

from hguide import COND, UNCOND, Sampler
from hguide.backends.hart import HART
from hguide.backends.text import TextEmbedding
from hguide.errors import NumericalError
from hguide.generate import generate
from hguide.grids import Step
from hguide.noise import SeededNoise

LAST = 2
COUNT = 3


@pytest.fixture(scope="module")
def hart() -> HART:
    return tiny_hart()


def test_the_null_condition_is_zeros_at_position_zero(hart: HART) -> None:
    state = hart.begin([text(1)], {COND: LAST, UNCOND: LAST}, SeededNoise([0]))
    given, null = state.conditioning.context
    bias = hart.transformer.context_embed.bias
    torch.testing.assert_close(null, bias.expand_as(null), atol=0, rtol=0)
    assert not torch.allclose(given, null)
    assert state.conditioning.positions.tolist() == [[0, 1, 2, 3, 3, 3], [0] * TOKENS]


def test_padding_in_front_has_position_minus_one(hart: HART) -> None:
    front = TextEmbedding(text(1).embedding, torch.arange(TOKENS) >= 2)
    state = hart.begin([front], {COND: LAST}, SeededNoise([0]))
    assert state.conditioning.positions.tolist() == [[-1, -1, 0, 1, 2, 3]]
    assert state.conditioning.offset.tolist() == [3]


def test_a_stream_is_dropped_after_its_last_use(hart: HART) -> None:
    rows: list[int] = []

    class Watched(HART):
        def predict(self, state: Any, step: Any, streams: Any, weights: Any) -> Any:
            logits = super().predict(state, step, streams, weights)
            rows.append(state.cache.rows)
            return logits

    generate(Watched(hart.transformer, hart.tokenizer), text(1), "cfg([0.5, 0.5, 0.0])", seeds=[1, 2, 3])
    assert rows == [6, 6, 3]
    state = hart.begin([text(1)], {COND: LAST, UNCOND: 1}, SeededNoise([0]))
    assert state.cache.nbytes == 2 * 1 * 2 * (TOKENS + 4 + 16) * 32 * 4  # K and V, depth, streams, tokens, width


def test_dropping_a_stream_leaves_the_others_as_they_were(hart: HART) -> None:
    texts = ("cfg([0.0, 0.5, 0.0])", "cfg([0.0, 0.5, 1e-9])")
    dropped, kept = (records_of(hart, each, Sampler(top_k=1), seeds=[1, 2]) for each in texts)
    for one, two in zip(dropped, kept, strict=True):
        torch.testing.assert_close(one.predictions[COND], two.predictions[COND], atol=1e-5, rtol=0)


def test_the_head_is_computed_for_the_streams_asked_for(hart: HART) -> None:
    found = []
    for asked in ((UNCOND,), (UNCOND, COND)):
        state = hart.begin([text(1), text(2)], {COND: LAST, UNCOND: LAST}, SeededNoise([0, 1]))
        step = hart.next_step(state)
        assert step is not None
        found.append(hart.predict(state, step, asked, {}))
    assert set(found[0]) == {UNCOND}
    torch.testing.assert_close(found[0][UNCOND], found[1][UNCOND], atol=1e-6, rtol=0)
    assert not torch.allclose(found[1][UNCOND], found[1][COND])


def test_the_null_stream_may_be_another_text(hart: HART) -> None:
    state = hart.begin([text(1)], {COND: LAST, UNCOND: LAST}, SeededNoise([0]), negative=text(1))
    step = hart.next_step(state)
    assert step is not None
    logits = hart.predict(state, step, (COND, UNCOND), {})
    torch.testing.assert_close(logits[COND], logits[UNCOND], atol=1e-6, rtol=0)


def test_weights_that_are_not_finite_are_named() -> None:
    broken = tiny_hart()
    broken.transformer.blocks[0].attn.proj.weight[0, 0] = torch.nan
    with pytest.raises(NumericalError, match="step 0"):
        generate(broken, text(1), seeds=[0])


def test_calls_at_the_last_scale_share_its_places(hart: HART) -> None:
    records = records_of(hart.with_options(maskgit_iterations=4), "cfg(1.5) | ssg(1.0)", seeds=[3, 4])
    calls = [each.step for each in records if each.step.index == LAST]
    assert [step.call for step in calls] == [0, 1, 2, 3]
    for sample in range(2):
        places = [step.positions[sample] for step in calls if step.positions is not None]
        assert all(torch.equal(each, each.sort().values) for each in places)
        assert sorted(torch.cat(places).tolist()) == list(range(16))
    assert calls[0].positions is not None
    assert not torch.equal(calls[0].positions[0], calls[0].positions[1])


def test_one_call_for_all_places_is_the_full_map(hart: HART) -> None:
    """The rotary positions, latents and noise of a place do not depend on how its map is cut up."""
    state = hart.begin([text(1)], {COND: LAST}, SeededNoise([0]))
    whole: dict[bool, Tensor] = {}
    for cut in (False, True):
        state = hart.begin([text(1)], {COND: LAST}, SeededNoise([0]))
        while (step := hart.next_step(state)) is not None:
            if cut and step.index == LAST:
                step = Step(LAST, COUNT, 0, step.scale, positions=torch.arange(16)[None])
            logits = hart.predict(state, step, (COND,), {})[COND]
            hart.advance(state, step, hart.sample(state, step, logits, Sampler(), {COND: 1.0}))
        whole[cut] = state.latent
    torch.testing.assert_close(whole[True], whole[False], atol=1e-5, rtol=0)

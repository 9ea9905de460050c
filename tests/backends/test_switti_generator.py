"""Switti as a generator: the contract, seeds, streams, smoothing, editing, text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from text_folders import clip_folder
from tiny_switti import CHANNELS, POOLED, TOKENS, text, tiny_switti
from torch import Tensor, nn

import hguide
from hguide.backends.switti import Switti, official_guidance, official_sampler
from hguide.backends.switti.text import SwittiTextEncoder, switti_text_encoder
from hguide.backends.text import CachedTextEncoder, TextEmbedding, TextEncoder
from hguide.backends.var import Edit
from hguide.errors import CheckpointError, ConfigError, ShapeError, StreamError
from hguide.generate import StepRecord, generate
from hguide.grids import Scale, Step
from hguide.guidance import parse
from hguide.noise import SeededNoise
from hguide.sampling import Prefix
from hguide.streams import UNCOND
from hguide.testing import check_generator


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "autoregressive"])
def switti(request: pytest.FixtureRequest) -> Switti:
    return tiny_switti(autoregressive=request.param)


def records(model: Switti, guidance: str = "cfg", **options: Any) -> list[StepRecord]:
    kept: list[StepRecord] = []
    generate(model, text(1), guidance, seeds=[0], on_step=lambda record: kept.append(record.keep()), **options)
    return kept


def test_it_meets_the_contract(switti: Switti) -> None:
    check_generator(switti, text(1), guidance="cfg(2.0) | ssg(0.5)")


def test_only_the_autoregressive_variant_remembers_more_than_the_latent() -> None:
    """The same latent after other tokens: a code that is there twice under two numbers."""
    for autoregressive in (False, True):
        model = tiny_switti(autoregressive=autoregressive)
        state = model.begin([text(1)], {hguide.COND: 2}, SeededNoise([0]))
        logits = []
        for latent in (1.0, 2.0):
            state = model.begin([text(1)], {hguide.COND: 2}, SeededNoise([0]))
            for k in range(3):
                step = model.next_step(state)
                assert step is not None
                if k == 1:
                    state.latent = torch.full_like(state.latent, latent)
                if k == 2:
                    state.latent = torch.ones_like(state.latent)
                found = model.predict(state, step, (hguide.COND,), {})[hguide.COND]
                model.advance(state, step, model.sample(state, step, found, hguide.Sampler(top_k=1), {}))
            logits.append(found)
        assert torch.equal(*logits) is not autoregressive


def test_keys_and_values_are_predicted_to_the_byte(switti: Switti) -> None:
    state = switti.begin([text(1)] * 3, {hguide.COND: 2, UNCOND: 2}, SeededNoise(range(3)))
    held = sum(block.keys.nbytes + block.values.nbytes for block in state.conditioning.blocks)
    held += 0 if state.cache is None else state.cache.nbytes
    assert switti.run_bytes(3, 2).cache == held


def test_a_stream_after_its_last_use_is_gone_and_not_missed(switti: Switti) -> None:
    found = []
    for last in (1, 2):
        state = switti.begin([text(1)] * 2, {UNCOND: last, hguide.COND: 2}, SeededNoise([0, 1]))
        for k in range(3):
            step = switti.next_step(state)
            assert step is not None
            logits = switti.predict(state, step, (hguide.COND,), {})[hguide.COND]
            switti.advance(state, step, switti.sample(state, step, logits, hguide.Sampler(top_k=1), {}))
            rows = 2 if k > last else 4
            assert [len(state.conditioning.mask), len(state.conditioning.blocks[0].keys)] == [rows, rows]
            assert state.cache is None or state.cache.rows == rows
        found.append(logits)
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def test_the_official_guidance_drops_the_null_stream(switti: Switti) -> None:
    assert official_guidance(14, off_from=11) == "cfg(6, stop=0.821)"
    for count in (3, 10, 14):
        for off in range(1, count):
            assert int(float(official_guidance(count, off_from=off).split("=")[1][:-1]) * count) == off
            late = parse(official_guidance(count, on_from=off - 1, off_from=off))
            grid = Scale(0, 1, 1)
            on = [bool(late.asks(hguide.COND, Step(k, count, 0, grid))[1:]) for k in range(count)]
            assert on == [k == off - 1 and k > 0 for k in range(count)]
    live = [UNCOND in record.predictions for record in records(switti, official_guidance(3, off_from=2))]
    assert live == [False, True, False]  # the ramp starts at nothing
    sampler = official_sampler(14, off_from=11, last_temperature=0.1)
    assert sampler.temperature == (1.0,) * 11 + (0.1,) * 3
    assert (sampler.top_k, sampler.top_p) == (400, 0.95)


def test_smoothing_mixes_codes_between_its_bounds(switti: Switti) -> None:
    smooth = switti.with_options(more_smooth=True, smooth_start=1, smooth_stop=2)
    assert [record.draw.embedding is not None for record in records(smooth)] == [False, True, False]
    assert [record.draw.embedding is not None for record in records(switti)] == [False] * 3
    always = switti.with_options(more_smooth=True)
    assert [record.draw.embedding is not None for record in records(always)] == [True] * 3
    # The filters bound the tokens, never the mix.
    for some, every in zip(records(always, sampler=hguide.Sampler(top_k=1)), records(always), strict=True):
        assert torch.equal(some.draw.embedding, every.draw.embedding)


def test_a_picture_is_kept_and_completed(switti: Switti) -> None:
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens = switti.encode(image)
    whole = generate(switti.with_options(edit=Edit(tokens, torch.ones(4, 4, dtype=torch.bool))), text(1), seeds=[0, 1])
    rebuilt = switti.tokenizer.decode(tokens).add(1).div(2)
    torch.testing.assert_close(whole, rebuilt.expand_as(whole), rtol=0, atol=1e-5)
    forced = generate(switti, text(1), sampler=Prefix(tokens=tokens), seeds=[0])
    torch.testing.assert_close(forced, rebuilt, rtol=0, atol=1e-5)
    with pytest.raises(ShapeError, match=r"images are \(b, 3, 8, 8\), got"):
        switti.encode(image[..., :4])


def test_the_null_stream_needs_an_empty_prompt() -> None:
    model = tiny_switti()
    model.null_text = None
    assert not model.serves.null
    with pytest.raises(StreamError, match="no null condition"):
        generate(model, text(1), "cfg", seeds=[0])
    with pytest.raises(ConfigError, match="needs a text encoder"):
        model.conditions(None, 1)
    with pytest.raises(ConfigError, match="takes 5 text tokens and one row of the pooled text, got 4 rows"):
        model.conditions(TextEmbedding(torch.zeros(4, CHANNELS), torch.ones(4, dtype=torch.bool)), 1)


def test_a_negative_prompt_takes_the_place_of_the_empty_one(switti: Switti) -> None:
    plain, negative = (generate(switti, text(1), "cfg(w=5)", seeds=[0], negative=given) for given in (None, text(7)))
    assert not torch.equal(plain, negative)
    assert torch.equal(generate(switti, text(1), "cfg(w=5)", seeds=[0], negative=text(99, real=2)), plain)


# Text


class Tower(nn.Module):
    """A text tower in a few lines, and its vocabulary."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(128, width, generator=source))
        self.calls = 0

    def forward(self, input_ids: Tensor) -> Any:
        self.calls += 1
        states = self.table[input_ids]
        return type("Output", (), {"last_hidden_state": states, "pooler_output": states.sum(1)})()


def words(prompts: list[str], *, padding: str, max_length: int, truncation: bool, return_tensors: str) -> dict:
    assert (padding, truncation, return_tensors) == ("max_length", True, "pt")
    rows = [[*prompt.encode()[: max_length - 1], 1] for prompt in prompts]
    tokens = torch.tensor([row + [0] * (max_length - len(row)) for row in rows])
    return {"input_ids": tokens, "attention_mask": (tokens > 0).long()}


def test_both_towers_lie_beside_each_other_and_the_pooled_state_below(tmp_path: Any) -> None:
    one, two = Tower(CHANNELS - POOLED, 1), Tower(POOLED, 2)
    encoder = SwittiTextEncoder(lambda: ((one, words), (two, words)), CHANNELS, lambda: "towers", length=TOKENS)
    assert isinstance(encoder, TextEncoder)
    embeddings, mask = encoder.encode(["ab", ""])
    assert embeddings.shape == (2, TOKENS + 1, CHANNELS)
    assert mask.tolist() == [[True] * 3 + [False] * 2 + [True], [True] + [False] * 4 + [True]]
    assert torch.equal(embeddings[0, 0], torch.cat([one.table[97], two.table[97]]))
    pooled = two.table[torch.tensor([97, 98, 1, 0, 0])].sum(0)
    torch.testing.assert_close(embeddings[0, -1, :POOLED], pooled)
    assert not embeddings[:, -1, POOLED:].any()

    base = tiny_switti()
    model = Switti(base.transformer, base.tokenizer, CachedTextEncoder(encoder, tmp_path), name="tiny")
    image = generate(model, "ab", "cfg(w=3)", seeds=[0])
    by_embedding = tiny_switti()
    by_embedding.null_text = TextEmbedding(embeddings[1], mask[1])
    given = TextEmbedding(embeddings[0], mask[0])
    torch.testing.assert_close(generate(by_embedding, given, "cfg(w=3)", seeds=[0]), image, rtol=0, atol=1e-5)
    calls = one.calls
    generate(model, "ab", "cfg(w=3)", seeds=[1])
    assert one.calls == calls


def test_towers_as_transformers_writes_them(tmp_path: Any) -> None:
    from transformers import CLIPTextModel

    folders = [clip_folder(tmp_path / str(width), width) for width in (CHANNELS - 8, 8)]
    encoder = switti_text_encoder(*folders)
    assert encoder.dim == CHANNELS
    (found,), (mask,) = encoder.encode(["a"])
    assert mask.tolist() == [True] * 3 + [False] * 74 + [True]
    for folder, place in zip(folders, (slice(0, CHANNELS - 8), slice(CHANNELS - 8, CHANNELS)), strict=True):
        given = torch.tensor([[6, 3, *[7] * 75]])
        output = CLIPTextModel.from_pretrained(folder).eval()(input_ids=given)
        torch.testing.assert_close(found[:77, place], output.last_hidden_state[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[77, :8], output.pooler_output[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(output.pooler_output[0], output.last_hidden_state[0, 2], rtol=0, atol=1e-5)


def test_folders_that_hold_no_tower(tmp_path: Any) -> None:
    with pytest.raises(CheckpointError, match=r"config.json is missing or states no hidden_size") as raised:
        switti_text_encoder(tmp_path, tmp_path)
    assert "\n" not in str(raised.value)

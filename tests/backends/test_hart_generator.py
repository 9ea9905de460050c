"""HART as a generator: the contract, seeds, streams, partial maps, the residual head, editing."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from tiny_hart import DIM, TOKENS, text, tiny_config, tiny_hart
from torch import Tensor

import hguide
from hguide import COND, UNCOND, Sampler
from hguide.backends.hart import HART, HARTOptions, HARTTokenizer, HybridEdit, official_guidance, official_sampler
from hguide.backends.hart.residual_diffusion import draw_residual, residual_weights
from hguide.backends.text import TextEmbedding
from hguide.backends.var import Edit
from hguide.errors import ConfigError, NumericalError, ShapeError
from hguide.generate import StepRecord, generate, run
from hguide.grids import Scale, Step
from hguide.noise import SeededNoise
from hguide.testing import check_generator

LAST = 2
COUNT = 3


@pytest.fixture(scope="module")
def hart() -> HART:
    return tiny_hart()


def records_of(model: HART, guidance: str, sampler: Sampler | None = None, **options: Any) -> list[StepRecord]:
    records: list[StepRecord] = []
    generate(model, text(1), guidance, sampler, on_step=lambda each: records.append(each.keep()), **options)
    return records


# The contract


def test_the_contract(hart: HART) -> None:
    check_generator(hart, text(1))


def test_the_contract_with_partial_maps(hart: HART) -> None:
    model = hart.with_options(more_smooth=True, maskgit_iterations=3)
    assert model.partial
    assert not hart.partial
    check_generator(model, text(1), guidance="cfg(1.5) | ssg(1.0)")


def test_the_image_of_a_seed_depends_on_nothing_else(hart: HART) -> None:
    model, guidance = hart.with_options(more_smooth=True), "cfg(1.5) | ssg(1.0)"
    texts = [text(1), text(2, real=6), None]
    together = generate(model, texts, guidance, seeds=[5, 6, 7])
    for place, (each, seed) in enumerate(zip(texts, (5, 6, 7), strict=True)):
        alone = generate(model, [each], guidance, seeds=[seed])
        torch.testing.assert_close(alone[0], together[place], atol=1e-4, rtol=0)
    turned = generate(model, texts[::-1], guidance, seeds=[7, 6, 5], deterministic=True)
    straight = generate(model, texts, guidance, seeds=[5, 6, 7], deterministic=True)
    assert torch.equal(turned.flip(0), straight)
    assert not torch.allclose(straight[0], straight[1], atol=1e-3)


@pytest.mark.parametrize("iterations", [1, 3])
def test_guidance_texts_run(hart: HART, iterations: int) -> None:
    model = hart.with_options(maskgit_iterations=iterations)
    plain = generate(model, text(1), seeds=[0])
    for guidance in ("cfg(1.5) | ssg(1.0)", official_guidance()):
        images = generate(model, text(1), guidance, seeds=[0])
        assert tuple(images.shape) == (1, 3, 8, 8)
        assert not torch.equal(images, plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_run(dtype: torch.dtype) -> None:
    model = tiny_hart()
    model.transformer.to(dtype)
    assert torch.isfinite(generate(model, text(1), "cfg | ssg", seeds=[0])).all()


# The network in all its forms


VARIANTS = [
    {"adaln": adaln, "ffn": ffn, "l2_norm": l2, "context_norm": not l2, "level_embedding": level, "pooling": pooling}
    for (adaln, pooling), (ffn, l2, level) in product(
        [("none", "max"), ("linear", "max"), ("linear", "avg"), ("table", "max")],
        [("llama", True, "timestep"), ("gpt2", False, "table")],
    )
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_all_scales_at_once_give_the_logits_of_one_after_the_other(variant: dict[str, Any]) -> None:
    model = tiny_hart(**variant)
    texts = [text(1), text(2, real=6)]
    kept: list[StepRecord] = []
    run(model, texts, None, noise=SeededNoise([1, 2]), on_step=lambda each: kept.append(each.keep()))
    state = model.begin(texts, {COND: LAST}, SeededNoise([1, 2]))
    tokens = [each.draw.tokens for each in kept]
    var_input = model.tokenizer.quantize.var_input(tokens, [scale.grid for scale in model.scales])
    logits, hidden = model.transformer(state.conditioning, var_input)
    stepwise = torch.cat([each.logits.flatten(1, 2) for each in kept], dim=1)
    torch.testing.assert_close(logits, stepwise, atol=2e-5, rtol=0)
    assert tuple(hidden.shape) == (2, 1 + 4 + 16, 32)


def test_padding_takes_part_but_is_not_averaged() -> None:
    """Only an average over the text knows what is padding; everything else reads its embeddings as they are."""
    given = text(1)
    mask = given.mask
    louder = TextEmbedding(torch.where(mask[:, None], given.embedding, 2 * given.embedding), mask)
    for adaln, pooling, same in (("none", "max", True), ("linear", "avg", True), ("linear", "max", False)):
        model = tiny_hart(adaln=adaln, pooling=pooling, context_norm=False)
        vectors, contexts = [], []
        for each in (given, louder):
            conditioning = model.begin([each], {COND: LAST}, SeededNoise([0])).conditioning
            contexts.append(conditioning.context)
            vectors.append(conditioning.blocks[0].vectors)
        assert not torch.equal(*contexts)
        if vectors[0] is not None and vectors[1] is not None:
            assert torch.allclose(vectors[0], vectors[1]) == same


# Streams


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


# Partial maps


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


# The residual head


def test_the_residual_is_guided_by_the_weights(hart: HART) -> None:
    """At the last scale alone, with the tokens of the strongest logits: what differs is the residual."""

    def latent(weights: dict[Any, float], model: HART = hart) -> Tensor:
        state = model.begin([text(1)], {COND: LAST, UNCOND: LAST}, SeededNoise([0]))
        while (step := model.next_step(state)) is not None:
            logits = model.predict(state, step, (COND, UNCOND), weights)[COND]
            model.advance(state, step, model.sample(state, step, logits, Sampler(top_k=1), weights))
        return state.latent

    plain = latent({COND: 1.0})
    assert torch.equal(latent({COND: 1.0, UNCOND: 0.0}), plain)
    assert not torch.allclose(latent({COND: 1.5, UNCOND: -0.5}), plain, atol=1e-4)
    # The accident: at strength 1.0 exactly no guidance; and without it.
    assert torch.equal(latent({COND: 2.0, UNCOND: -1.0}), plain)
    guided = latent({COND: 2.0, UNCOND: -1.0}, hart.with_options(unguided_at_one=False))
    assert not torch.allclose(guided, plain, atol=1e-4)
    torch.testing.assert_close(guided, latent({COND: 2.0 + 1e-6, UNCOND: -1.0 - 1e-6}), atol=1e-3, rtol=0)
    assert not torch.allclose(latent({COND: 1.0}, hart.with_options(residual=False)), plain, atol=1e-4)


def test_weights_of_the_residual() -> None:
    assert residual_weights([2.0, -1.0], True) == [1.0, 0.0]
    assert residual_weights([2.0, -1.0], False) == [2.0, -1.0]
    assert residual_weights([2.5, -1.5], True) == [2.5, -1.5]


def test_equal_conditions_make_guidance_of_the_residual_the_identity(hart: HART) -> None:
    from hguide.backends.hart.diffusion_schedule import respaced

    head, noise = hart.transformer.residual_head, SeededNoise([1, 2])
    step, z = Step(LAST, COUNT, 0, Scale(LAST, 2, 2)), torch.randn(2, 4, 32)
    with torch.no_grad():
        one = draw_residual(head, respaced(5), [z], [1.0], noise, step)
        two = draw_residual(head, respaced(5), [z, z], [3.0, -2.0], noise, step)
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)
    assert one.abs().max() <= 0.6


def test_official_settings() -> None:
    sampler = official_sampler(14)
    assert sampler.top_k == (600,) * 7 + (300,) * 7
    guidance = hguide.guidance.parse(official_guidance())
    strengths = [-guidance.weights(COND, Step(k, 14, 0, Scale(k, 1, 1))).get(UNCOND, 0.0) for k in range(14)]
    assert strengths[-1] == strengths[-2] == pytest.approx(4.5 * 12 / 13)
    assert strengths[0] == 0.0


# Pictures


def test_an_edit_keeps_the_picture_where_it_says(hart: HART) -> None:
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    hybrid = hart.encode_hybrid(image)
    assert all(torch.equal(a, b) for a, b in zip(hybrid.tokens, hart.encode(image), strict=True))
    keep = torch.ones(4, 4, dtype=torch.bool)
    f = hart.tokenizer.latent(image * 2 - 1)
    exact = (hart.tokenizer.decode_latent(f) + 1) / 2
    for iterations in (1, 3):
        model = hart.with_options(edit=HybridEdit(hybrid.tokens, keep, hybrid.rest), maskgit_iterations=iterations)
        whole = generate(model, text(1), seeds=[0, 1])
        torch.testing.assert_close(whole, exact.expand_as(whole), atol=1e-5, rtol=0)
    half = keep.clone()
    half[:, 2:] = False
    model = hart.with_options(edit=HybridEdit(hybrid.tokens, half, hybrid.rest))
    assert not torch.allclose(*generate(model, text(1), seeds=[0, 1]), atol=1e-3)
    discrete = generate(hart.with_options(edit=Edit(hybrid.tokens, keep)), text(1), seeds=[0])
    assert not torch.allclose(discrete, exact, atol=1e-3)
    with pytest.raises(ShapeError, match="rest lies on"):
        HybridEdit(hybrid.tokens, keep, hybrid.rest[..., :3])


def test_an_edit_of_another_schedule_is_refused(hart: HART) -> None:
    tokens = [torch.zeros(1, side, side, dtype=torch.int64) for side in (1, 3, 4)]
    model = hart.with_options(edit=Edit(tokens, torch.ones(4, 4, dtype=torch.bool)))
    with pytest.raises(ShapeError, match=r"step 1 lie on \(3, 3\), the model's on \(2, 2\)"):
        generate(model, text(1), seeds=[0])


def test_tokens_and_rest_add_up_to_the_latent(hart: HART) -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    tokenizer: HARTTokenizer = hart.tokenizer
    grids = [scale.grid for scale in hart.scales]
    f, hybrid = tokenizer.latent(images), tokenizer.encode_hybrid(images)
    f_hat = torch.zeros_like(f)
    for k, tokens in enumerate(hybrid.tokens[:-1]):
        f_hat = tokenizer.add_scale(f_hat, tokenizer.quantize.lookup(tokens), k, grids)
    torch.testing.assert_close(tokenizer.add_scale(f_hat, hybrid.rest, LAST, grids), f, atol=1e-6, rtol=0)
    assert torch.equal(tokenizer.quantize.nearest(hybrid.rest), hybrid.tokens[-1])
    with pytest.raises(ShapeError, match=r"images are \(b, 3, 8, 8\)"):
        hart.encode(torch.rand(1, 3, 10, 10))


# What is refused


def test_conditions_are_checked(hart: HART) -> None:
    with pytest.raises(ConfigError, match="'a cat' needs a text encoder"):
        generate(hart, "a cat", seeds=[0])
    with pytest.raises(ConfigError, match=f"text embeddings of {DIM} channels, got 13"):
        generate(hart, TextEmbedding(torch.zeros(TOKENS, 13), torch.ones(TOKENS, dtype=torch.bool)), seeds=[0])
    with pytest.raises(ConfigError, match=f"takes {TOKENS} text tokens, padding included, got 5"):
        generate(hart, TextEmbedding(torch.zeros(5, DIM), torch.ones(5, dtype=torch.bool)), seeds=[0])
    with pytest.raises(ConfigError, match=r"a prompt, a TextEmbedding or None, got 3\.5"):
        generate(hart, 3.5, seeds=[0])


def test_classes_are_prompts_by_number(hart: HART) -> None:
    class Words:
        dim, fingerprint = DIM, "words"

        def encode(self, prompts: Any) -> tuple[Tensor, Tensor]:
            found = [text(len(prompt)) for prompt in prompts]
            return torch.stack([each.embedding for each in found]), torch.stack([each.mask for each in found])

    model = HART(hart.transformer, hart.tokenizer, Words(), classes=["farm", "harbor"])
    assert model.class_count == 2
    by_name, by_number = generate(model, "harbor", seeds=[0]), generate(model, 1, seeds=[0])
    assert torch.equal(by_name, by_number)
    with pytest.raises(ConfigError, match="from 0 to 1, got 2"):
        generate(model, 2, seeds=[0])


def test_parts_of_other_models_are_refused(hart: HART) -> None:
    with pytest.raises(ConfigError, match="25 tokens of 8 channels, the tokenizer 24 of 8; they were not"):
        HART(tiny_hart(vocabulary=25).transformer, hart.tokenizer)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        HARTOptions(maskgit_iterations=0)
    with pytest.raises(ConfigError) as raised:
        tiny_config(patch_nums=(2, 1), width=30, adaln="tabel", diffusion_steps=1)
    for part in ("patch_nums", "multiple of 4 heads", "did you mean 'table'", "diffusion_steps must be at least 2"):
        assert part in str(raised.value)

"""HART as a generator: the contract, seeds, types, and what is refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from tiny_hart import DIM, TOKENS, text, tiny_config, tiny_hart
from torch import Tensor

from hguide import COND
from hguide.backends.hart import HART, HARTOptions, official_guidance
from hguide.backends.text import TextEmbedding
from hguide.errors import ConfigError
from hguide.generate import StepRecord, generate, run
from hguide.noise import SeededNoise
from hguide.testing import check_generator

LAST = 2
COUNT = 3


@pytest.fixture(scope="module")
def hart() -> HART:
    return tiny_hart()


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

"""Infinity as a generator: the contract, seeds, prompts and shapes of pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_infinity import SQUARE, TEXT_CHANNELS, LetterEncoder, text, tiny_infinity

import hguide
from hguide.backends.infinity import Infinity, ScaleSchedule, published_schedule
from hguide.backends.text import TextEmbedding
from hguide.errors import ConfigError
from hguide.generate import generate
from hguide.grids import Scale
from hguide.provenance import model_hash
from hguide.testing import check_generator

TALL = ScaleSchedule(((1, 1), (2, 1), (3, 2), (6, 4)), (12, 8))
WIDE = ScaleSchedule(((1, 1), (1, 3), (2, 5)))


@pytest.fixture(scope="module")
def model() -> Infinity:
    return tiny_infinity()


@pytest.mark.parametrize(
    ("patchify", "schedule", "options"),
    [
        (False, TALL, {}),
        (True, WIDE, {"guidance_grid": "tokenizer"}),
        (True, SQUARE, {"cfg_layer": -1}),
    ],
)
def test_the_contract(patchify: bool, schedule: ScaleSchedule, options: dict[str, Any]) -> None:
    check_generator(tiny_infinity(patchify, schedule, **options), text(5))


@pytest.mark.parametrize(
    ("guidance", "patchify"),
    [("cfg(w=3) | ssg(1.0)", False), ("cfg(w=[3.0, 1.0, 2.5, 2.0]) | ssg", True), ("igg(1.0)", False)],
)
def test_guidance_runs(guidance: str, patchify: bool) -> None:
    model = tiny_infinity(patchify, TALL)
    guided = generate(model, text(5), guidance, seeds=[0, 1])
    assert guided.shape == (2, 3, *model.image_size)
    assert not torch.allclose(guided, generate(model, text(5), seeds=[0, 1]), atol=1e-3)


# Seeds


def test_an_image_does_not_depend_on_its_batch(model: Infinity) -> None:
    prompts = [text(3, 1), text(9, 2), text(6, 3)]
    together = generate(model, prompts, "cfg(w=3) | ssg(0.5)", seeds=[7, 8, 9])
    for place, (seed, prompt) in enumerate(zip([7, 8, 9], prompts, strict=True)):
        alone = generate(model, prompt, "cfg(w=3) | ssg(0.5)", seeds=[seed])
        torch.testing.assert_close(together[place : place + 1], alone, atol=1e-4, rtol=0)
    one_by_one = generate(model, prompts, "cfg(w=3) | ssg(0.5)", seeds=[7, 8, 9], deterministic=True)
    alone = generate(model, prompts[1], "cfg(w=3) | ssg(0.5)", seeds=[8], deterministic=True)
    assert torch.equal(one_by_one[1:2], alone)


def test_padding_of_a_text_means_nothing(model: Infinity) -> None:
    padded = generate(model, text(5, padding=6), "cfg(w=3)", seeds=[0], deterministic=True)
    short = text(5, padding=6)
    cut = TextEmbedding(short.embedding[:5], short.mask[:5])
    assert torch.equal(padded, generate(model, cut, "cfg(w=3)", seeds=[0], deterministic=True))


# Prompts


def test_prompts_are_encoded_once_each() -> None:
    encoder = LetterEncoder()
    model = tiny_infinity(text_encoder=encoder)
    images = generate(model, ["a cat", "a dog", "a cat"], "cfg(w=3)", seeds=[1, 2, 3], negative="blurry")
    assert encoder.calls == ["a cat", "a dog", "blurry"]
    embeddings, mask = encoder.encode(["a dog"])
    by_embedding = generate(
        model, TextEmbedding(embeddings[0], mask[0]), "cfg(w=3)", seeds=[2], negative="blurry", deterministic=True
    )
    torch.testing.assert_close(images[1:2], by_embedding, atol=1e-4, rtol=0)


def test_classes_are_prompts() -> None:
    model = tiny_infinity(text_encoder=LetterEncoder(), classes=["beach", "river"])
    assert (model.class_count, model.class_names) == (2, ("beach", "river"))
    assert model.conditions([1, "harbor"], 2) == ["river", "harbor"]
    assert torch.equal(generate(model, 1, seeds=[0]), generate(model, "river", seeds=[0]))
    with pytest.raises(ConfigError, match="from 0 to 1, got 2"):
        generate(model, 2, seeds=[0])


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("a cat", "needs a text encoder"),
        (3, "a prompt, a TextEmbedding or None, got 3"),
        (None, "None is no condition"),
        (TextEmbedding(torch.zeros(2, 7), torch.ones(2, dtype=torch.bool)), f"of {TEXT_CHANNELS} channels, got 7"),
        (text(13), "1 to 12 tokens, got 13"),
        (TextEmbedding(torch.zeros(2, TEXT_CHANNELS), torch.zeros(2, dtype=torch.bool)), "1 to 12 tokens, got 0"),
    ],
)
def test_conditions_that_cannot_be(model: Infinity, condition: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(model, condition, seeds=[0])


# Options


def test_options_that_cannot_be(model: Infinity) -> None:
    other = tiny_infinity(bits=6)
    with pytest.raises(
        ConfigError, match="4 bits per tokenizer position, the tokenizer 6; they were not trained together"
    ):
        Infinity(model.transformer, other.tokenizer, SQUARE)
    with pytest.raises(ConfigError, match=r"the schedule has 16 scales, the model 15 levels; guidance_grid is"):
        model.with_options(schedule=ScaleSchedule(((2, 2),) * 16), guidance_grid="pixels")
    with pytest.raises(ConfigError, match="no option 'cfg_layers'; there are schedule, "):
        model.with_options(cfg_layers=-1)
    encoder = LetterEncoder()
    encoder.dim = 5
    with pytest.raises(ConfigError, match=f"text encoder has 5 channels, the transformer takes {TEXT_CHANNELS}"):
        model.with_options(text_encoder=encoder)


def test_options_share_the_weights(model: Infinity) -> None:
    other = model.with_options(schedule=TALL, cfg_layer=-1)
    assert other.transformer is model.transformer
    assert (model.cfg_layer, model.schedule) == (None, SQUARE)
    assert other.scales[-1] == Scale(3, 6, 4)
    assert model.scales[-1] == Scale(3, 4, 4)


def test_the_published_ratios_run() -> None:
    model = tiny_infinity(schedule=published_schedule("0.06M", 0.5))
    assert model.image_size == (44, 88)
    assert generate(model, text(2), "cfg(w=3) | ssg", seeds=[0]).shape == (1, 3, 44, 88)


def test_it_is_registered() -> None:
    from hguide.backends import registry

    assert registry.get("infinity") is Infinity
    with pytest.raises(hguide.HGuideError, match="no such file"):
        hguide.load("infinity-3b")


def test_negatives_follow_their_seeds_into_any_batch() -> None:
    model = tiny_infinity(text_encoder=LetterEncoder())
    negatives = ["blurry", "grey", "dark"]
    together = generate(model, "a cat", "cfg(w=3)", seeds=[1, 2, 3], negative=negatives, deterministic=True)
    for place, negative in enumerate(negatives):
        alone = generate(model, "a cat", "cfg(w=3)", seeds=[place + 1], negative=negative, deterministic=True)
        assert torch.equal(together[place : place + 1], alone)
    batched = generate(model, "a cat", "cfg(w=3)", seeds=[1, 2, 3], negative=negatives, batch_size=2)
    torch.testing.assert_close(batched, together, atol=1e-4, rtol=0)
    with pytest.raises(ConfigError, match="3 seeds but 2 negatives: give one negative, or one for each seed"):
        generate(model, "a cat", "cfg(w=3)", seeds=[1, 2, 3], negative=negatives[:2], batch_size=2)


def test_another_text_encoder_is_another_model() -> None:
    encoders = [LetterEncoder(), LetterEncoder(), LetterEncoder()]
    encoders[2].fingerprint = "other letters"
    first, same, other = (model_hash(tiny_infinity(text_encoder=encoder)) for encoder in encoders)
    assert first == same
    assert first != other


def test_all_of_it_in_float64() -> None:
    model = tiny_infinity()
    model.transformer.cast_blocks(torch.float64)
    assert {value.dtype for value in model.transformer.parameters()} == {torch.float64}
    assert torch.isfinite(generate(model, text(3), "cfg(w=2) | ssg(0.5)", seeds=[0])).all()

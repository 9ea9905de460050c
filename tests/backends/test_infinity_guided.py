"""Guidance on Infinity: streams and their cache, CFG inside a layer, bits and the grid that guidance sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_infinity import SQUARE, text, tiny_infinity
from torch import Tensor

from hguide import COND, UNCOND
from hguide.backends.infinity import Infinity, ScaleSchedule
from hguide.backends.text import TextEmbedding
from hguide.errors import ConfigError, ShapeError, StreamError
from hguide.generate import StepRecord, generate, run
from hguide.grids import Step
from hguide.guidance import Guidance, parse
from hguide.noise import SeededNoise
from hguide.sampling import Prefix, Sampler

TALL = ScaleSchedule(((1, 1), (2, 1), (3, 2), (6, 4)), (12, 8))
WIDE = ScaleSchedule(((1, 1), (1, 3), (2, 5)))


@pytest.fixture(scope="module")
def model() -> Infinity:
    return tiny_infinity()


def predictions(model: Infinity, guidance: str, **options: Any) -> list[StepRecord]:
    records: list[StepRecord] = []
    generate(
        model, text(5), guidance, Sampler(top_k=1), seeds=[1, 2], on_step=lambda r: records.append(r.keep()), **options
    )
    return records


def test_a_stream_is_dropped_after_its_last_use(model: Infinity) -> None:
    rows: list[int] = []

    class Watched(Infinity):
        def predict(self, state: Any, step: Any, streams: Any, weights: Any) -> Any:
            logits = super().predict(state, step, streams, weights)
            rows.append(state.cache.rows)
            return logits

    watched = Watched(model.transformer, model.tokenizer, SQUARE)
    generate(watched, text(5), "cfg(w=3, stop=0.5)", seeds=[1, 2, 3])
    assert rows == [6, 6, 3, 3]
    dropped = predictions(model, "cfg(w=[1.0, 2.0, 1.0, 1.0])")[:3]
    kept = predictions(model, "cfg(w=[1.0, 2.0, 1.0, 1.00000001])")[:3]
    for one, two in zip(dropped, kept, strict=True):
        torch.testing.assert_close(one.predictions[COND], two.predictions[COND], atol=1e-4, rtol=0)


def test_the_cache_has_its_final_size_and_the_compute_type(model: Infinity) -> None:
    half = tiny_infinity()
    half.transformer.cast_blocks(torch.bfloat16)
    for each, itemsize in ((model, 4), (half, 2)):
        state = each.begin([text(5)], {COND: 3, UNCOND: 1}, SeededNoise([0]))
        assert state.cache.nbytes == 2 * 2 * 2 * 30 * 32 * itemsize  # K and V, depth, streams, tokens, width, bytes
    images = generate(half, text(5), "cfg(w=3) | ssg", seeds=[0])
    assert images.dtype == torch.float32
    assert torch.isfinite(images).all()
    state = half.begin([text(5)], {COND: 3}, SeededNoise([0]))
    assert state.modulation.start.dtype == torch.float32


def test_the_head_is_computed_for_the_streams_asked_for(model: Infinity) -> None:
    rows: list[int] = []
    hook = model.transformer.head.register_forward_hook(lambda part, given, out: rows.append(out.shape[0]))
    state = model.begin([text(5), text(6)], {COND: 3, UNCOND: 3}, SeededNoise([0, 1]))
    step = model.next_step(state)
    assert step is not None
    only_null = model.predict(state, step, (UNCOND,), {})
    hook.remove()
    assert rows == [2]
    state = model.begin([text(5), text(6)], {COND: 3, UNCOND: 3}, SeededNoise([0, 1]))
    both = model.predict(state, step, (UNCOND, COND), {})
    torch.testing.assert_close(only_null[UNCOND], both[UNCOND], atol=1e-5, rtol=0)
    assert not torch.allclose(both[UNCOND], both[COND])


def test_the_null_stream_is_the_start_of_a_table_as_long_as_the_prompt(model: Infinity) -> None:
    for tokens in (1, 4, 12):
        null = model.transformer.null_text(tokens)
        as_given = TextEmbedding(null, torch.ones(tokens, dtype=torch.bool))
        state = model.begin([as_given], {COND: 3, UNCOND: 3}, SeededNoise([0]))
        step = model.next_step(state)
        assert step is not None
        logits = model.predict(state, step, (COND, UNCOND), {})
        torch.testing.assert_close(logits[COND], logits[UNCOND], atol=1e-5, rtol=0)


def test_a_negative_prompt_is_the_content_of_the_null_stream(model: Infinity) -> None:
    def first(prompt: TextEmbedding, stream: Any, negative: Any = None) -> Tensor:
        state = model.begin([prompt, prompt], {COND: 3, UNCOND: 3}, SeededNoise([0, 1]), negative)
        step = model.next_step(state)
        assert step is not None
        return model.predict(state, step, (stream,), {})[stream]

    other = text(7, 9)
    near = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(first(text(5), UNCOND, other), first(other, COND), **near)
    torch.testing.assert_close(first(text(5), UNCOND, [other, text(3, 4)])[1], first(text(3, 4), COND)[1], **near)
    with pytest.raises(StreamError, match="never asks for the null stream"):
        generate(model, text(5), "ssg", seeds=[0], negative=other)


def test_cfg_in_a_layer_leaves_one_map_of_logits() -> None:
    inside = tiny_infinity(cfg_layer=-2)
    for record in predictions(inside, "cfg(w=3)"):
        assert torch.equal(record.predictions[COND], record.predictions[UNCOND])
        assert torch.equal(record.logits, record.predictions[COND])
    plain = predictions(tiny_infinity(), "cfg(w=3)")
    assert not torch.allclose(plain[0].logits, predictions(inside, "cfg(w=3)")[0].logits, atol=1e-3)


def test_cfg_in_the_last_layer_is_cfg_in_front_of_the_head() -> None:
    model = tiny_infinity(cfg_layer=-1)
    state = model.begin([text(5)], {COND: 3, UNCOND: 3}, SeededNoise([0]))
    step = model.next_step(state)
    assert step is not None
    outputs: list[Tensor] = []
    hook = model.transformer.get_submodule("blocks.1").register_forward_hook(lambda b, x, out: outputs.append(out))
    found = model.predict(state, step, (COND, UNCOND), {COND: 3.0, UNCOND: -2.0})[COND]
    hook.remove()
    given, null = outputs[0].chunk(2)
    logits = model.transformer.forward_head((3.0 * given - 2.0 * null), state.modulation.keep(1))
    torch.testing.assert_close(found.flatten(1, 2), logits[..., 1::2] - logits[..., ::2], atol=1e-5, rtol=0)


def test_without_weights_the_layer_mixes_nothing() -> None:
    inside, plain = predictions(tiny_infinity(cfg_layer=-2), "ssg(0.5)"), predictions(tiny_infinity(), "ssg(0.5)")
    for one, two in zip(inside, plain, strict=True):
        assert torch.equal(one.logits, two.logits)


@pytest.mark.parametrize("layer", [0, 1, -3, True])
def test_layers_that_are_not_there(layer: Any) -> None:
    with pytest.raises(ConfigError, match=r"cfg_layer is a number from -1 .* to -2"):
        tiny_infinity(cfg_layer=layer)


@pytest.mark.parametrize(
    "guidance", ["cfg(w=3)", "ssg(0.7)", "cfg(w=2.5) | ssg(0.7)", "cfg(w=3) | ssg(0.4, prior=bicubic)"]
)
def test_linear_guidance_on_differences_is_guidance_on_both_channels(guidance: str) -> None:
    """The oracle acts on the network's own two logits per bit."""
    model, method = tiny_infinity(schedule=TALL), parse(guidance)
    two, both = [], {}
    hook = model.transformer.head.register_forward_hook(lambda part, given, out: two.append(out.clone()))
    found: list[Tensor] = []

    def keep(record: StepRecord) -> None:
        found.append(record.logits.clone())

    conditions = model.conditions(text(5), 2)
    run(model, conditions, method, Sampler(top_k=1), noise=SeededNoise([0, 1]), on_step=keep)
    hook.remove()
    memory: Any = {}
    for k, scale in enumerate(model.scales):
        step = Step(k, model.count, 0, scale)
        asked = method.asks(COND, step)
        maps = two[k].unflatten(1, scale.grid).unflatten(0, (len(asked), 2))
        both = dict(zip(asked, maps, strict=True))
        guided, memory = method.apply(both, step, memory)
        difference = guided[..., 1::2] - guided[..., ::2]
        torch.testing.assert_close(found[k], difference, atol=1e-4, rtol=1e-4)


def ssg_maps(model: Infinity, method: Guidance) -> list[Tensor]:
    records: list[StepRecord] = []
    generate(model, text(5), method, Sampler(top_k=1), seeds=[0], on_step=lambda r: records.append(r.keep()))
    return [record.logits for record in records]


def test_the_grid_that_guidance_sees_is_an_option() -> None:
    fine = tiny_infinity(True, guidance_grid="tokenizer")
    coarse = fine.with_options(guidance_grid="transformer")
    assert [scale.grid for scale in coarse.scales] == list(SQUARE.grids)
    assert [scale.grid for scale in fine.scales] == [(2 * h, 2 * w) for h, w in SQUARE.grids]
    assert (coarse.channels.width, fine.channels.width) == (16, 4)
    for method, same in (("cfg(w=3)", True), ("ssg(1.0)", False)):
        on_fine, on_coarse = ssg_maps(fine, parse(method)), ssg_maps(coarse, parse(method))
        # channel = bit * 4 + dy * 2 + dx
        spread = on_coarse[1].unflatten(-1, (4, 2, 2)).permute(0, 1, 4, 2, 5, 3).reshape(1, 4, 4, 4)
        assert torch.allclose(on_fine[1], spread, atol=1e-4) == same


def test_a_temperature_and_a_weight_for_each_scale(model: Infinity) -> None:
    listed = generate(
        model, text(5), "cfg(w=[3.0, 1.0, 2.5, 2.0])", Sampler(temperature=[0.5, 0.7, 1.0, 0.8]), seeds=[0]
    )
    assert listed.shape == (1, 3, *model.image_size)
    with pytest.raises(ConfigError, match="temperature lists 3 numbers, the generator has 4 steps"):
        generate(model, text(5), seeds=[0], sampler=Sampler(temperature=[0.5, 0.7, 1.0]))


@pytest.mark.parametrize(("patchify", "grid"), [(False, "transformer"), (True, "transformer"), (True, "tokenizer")])
def test_a_picture_is_completed_from_its_first_scales(patchify: bool, grid: Any) -> None:
    model = tiny_infinity(patchify, guidance_grid=grid)
    image = torch.rand(1, 3, *model.image_size, generator=torch.Generator().manual_seed(5))
    bits = model.encode(image)
    whole = generate(model, text(5), sampler=Prefix(tokens=bits), seeds=[0])
    positions = model.tokenizer.encode(image * 2 - 1, model.tokenizer_grids)
    total = torch.zeros(1, 4, *model.tokenizer_grids[-1])
    for each in positions:
        codes = each.permute(0, 3, 1, 2).float() - 0.5  # (2 bit - 1) / sqrt(4)
        total += torch.nn.functional.interpolate(codes, size=total.shape[2:], mode="bilinear")
    recon = model.tokenizer.decode_latent(total).add(1).div(2)
    torch.testing.assert_close(whole, recon, atol=1e-4, rtol=0)
    part = generate(model, text(5), sampler=Prefix(tokens=bits[:2]), seeds=[0])
    assert not torch.allclose(part, recon, atol=1e-2)
    with pytest.raises(ShapeError, match=r"images are \(b, 3, "):
        model.encode(torch.rand(1, 3, 20, 24))


def test_rounding_of_the_attention_to_text_is_an_option(model: Infinity) -> None:
    exact, rounded = (
        predictions(model.with_options(cross_attention_dtype=dtype), "cfg(w=3)")[0].predictions[COND]
        for dtype in (None, torch.bfloat16)
    )
    assert 1e-5 < (exact - rounded).abs().max() < 0.1

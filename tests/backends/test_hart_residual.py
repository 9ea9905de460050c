"""HART's residual head under guidance, and pictures: editing, tokens and rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_hart import text, tiny_hart
from torch import Tensor

import hguide
from hguide import COND, UNCOND, Sampler
from hguide.backends.hart import HART, HARTTokenizer, HybridEdit, official_guidance, official_sampler
from hguide.backends.hart.residual_diffusion import draw_residual, residual_weights
from hguide.backends.var import Edit
from hguide.errors import ShapeError
from hguide.generate import generate
from hguide.grids import Scale, Step
from hguide.noise import SeededNoise

LAST = 2
COUNT = 3


@pytest.fixture(scope="module")
def hart() -> HART:
    return tiny_hart()


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

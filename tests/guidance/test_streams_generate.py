"""Guidance by other streams on VAR, whole runs: seeds, memory, lenders, refusals.

Tolerances: logits in another batch 5e-5; guided logits against the written-out rule 1e-4.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from dense_var import perturbed
from torch import Tensor

import hguide
from hguide import COND, UNCOND, Corruption, Sampler, Stream
from hguide.backends.var import VAR, VARTransformer
from hguide.backends.var.initialise import initialise
from hguide.errors import StreamError
from hguide.generate import StepRecord, generate
from hguide.guidance import from_callable
from hguide.noise import SeededNoise
from hguide.sampling import Replay
from hguide.testing import check_generator

GUIDED_ATOL = {"atol": 1e-4, "rtol": 0}
ALONE = {"atol": 5e-5, "rtol": 0}


def test_the_draw_carries_the_probability_of_its_tokens(var: VAR) -> None:
    records: list[StepRecord] = []
    generate(var, 3, "softcfg(1.5) | ssg", Sampler(top_k=5), seeds=[0, 1], on_step=lambda r: records.append(r.keep()))
    for record in records:
        wanted = record.logits.softmax(-1).gather(-1, record.draw.tokens[..., None])[..., 0]
        torch.testing.assert_close(record.draw.confidence, wanted, atol=1e-6, rtol=1e-5)
    records.clear()
    generate(var, 3, "cfg | ssg", seeds=[0], on_step=records.append)
    assert all(record.draw.confidence is None for record in records)


GUIDED = [
    "cfg | vpg(1.3, proportion=0.3)",
    "cfg | vpg(0.5, proportion=0.3, redraw=true)",
    "softcfg | pag",
    "(cfg + pag(0.5) + slg(0.5) + seg(0.5)) | ssg(0.5)",
]


@pytest.mark.parametrize("text", GUIDED)
def test_images_depend_on_the_seed_only(var: VAR, text: str) -> None:
    whole = generate(var, 3, text, seeds=[5, 6, 7], deterministic=True)
    assert torch.equal(whole[[2, 0]], generate(var, 3, text, seeds=[7, 5], deterministic=True))
    assert not torch.equal(whole, generate(var, 3, "cfg", seeds=[5, 6, 7], deterministic=True))
    batched = generate(var, 3, text, seeds=[5, 6, 7])
    assert ((batched - whole).abs().amax((1, 2, 3)) > 1e-3).sum() <= 1


def test_vpg_without_corruption_is_no_guidance_bit_for_bit(var: VAR) -> None:
    plain = generate(var, 3, "cfg", seeds=[0, 1])
    assert torch.equal(generate(var, 3, "cfg | vpg(3.0, proportion=0.0)", seeds=[0, 1]), plain)
    assert torch.equal(generate(var, 3, "cfg | autoguidance(2.0)", seeds=[0, 1], models={"weak": var}), plain)


def test_rows_of_the_cache_are_streams_times_samples(var: VAR) -> None:
    rows: list[int] = []

    class Watched(VAR):
        def predict(self, state: Any, step: Any, streams: Any, weights: Any) -> Any:
            logits = super().predict(state, step, streams, weights)
            rows.append(state.cache.rows)
            return logits

    watched = Watched(var.transformer, var.tokenizer)
    generate(watched, 3, "cfg | vpg(1.3, stop=0.5)", seeds=[1, 2, 3])
    assert rows == [12, 12, 6, 6]
    rows.clear()
    generate(watched, 3, "cfg + pag + seg(stop=0.75)", seeds=[1, 2])
    assert rows == [8, 8, 8, 6]
    four = (COND, UNCOND, COND.corrupted(Corruption(0.4)), UNCOND.corrupted(Corruption(0.4)))
    state = var.begin([1], dict.fromkeys(four, 3), SeededNoise([0]))
    assert state.cache.nbytes == 2 * 3 * 4 * 39 * 48 * 4  # K and V, depth, streams, tokens, width, bytes


def weak_of(var: VAR) -> VAR:
    config = replace(var.transformer.config, depth=1, width=16, heads=1)
    return VAR(initialise(VARTransformer(config), torch.Generator().manual_seed(2)), var.tokenizer, name="weak")


def test_a_weaker_model_of_the_same_tokenizer_lends_its_stream(var: VAR) -> None:
    weak = weak_of(var)
    records: list[StepRecord] = []
    images = generate(
        var,
        3,
        "cfg | autoguidance(1.5)",
        seeds=[5, 6],
        models={"weak": weak},
        on_step=lambda r: records.append(r.keep()),
    )
    assert not torch.equal(images, generate(var, 3, "cfg", seeds=[5, 6]))
    tokens = [record.draw.tokens for record in records]
    alone: list[StepRecord] = []
    generate(weak, 3, "cfg", Replay(tokens=tokens), seeds=[5, 6], on_step=lambda r: alone.append(r.keep()))
    for lent, own in zip(records[1:], alone[1:], strict=True):
        for stream in (COND, UNCOND):
            torch.testing.assert_close(lent.predictions[stream.by("weak")], own.predictions[stream], **ALONE)
        c, u, wc, wu = (lent.predictions[s] for s in (COND, UNCOND, COND.by("weak"), UNCOND.by("weak")))
        t = 1.5 * lent.step.index / 3
        strong, weaker = (1 + t) * c - t * u, (1 + t) * wc - t * wu
        torch.testing.assert_close(lent.logits, strong + 1.5 * (strong - weaker), **GUIDED_ATOL)


def test_a_lender_of_another_tokenizer_is_refused(var: VAR) -> None:
    other = copy.deepcopy(var.tokenizer)
    with torch.no_grad():
        other.quantize.embedding.weight.mul_(2.0)
    with pytest.raises(StreamError, match="another tokenizer than tiny"):
        generate(var, 3, "autoguidance", seeds=[0], models={"weak": VAR(var.transformer, other)})


def ask(var: VAR, stream: Stream, **options: Any) -> Tensor:
    return generate(var, 3, from_callable(lambda base, other, step: base, asks=(stream,)), seeds=[0], **options)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (perturbed("pag", (1, 3)), r"tiny refuses: it has the layers 0 to 2, asked for 3"),
        (perturbed("blur"), r"tiny refuses: it serves no perturbation 'blur' \(served: pag, seg, slg, soft\)"),
        (perturbed("seg", sigam=1.0), r"'seg' has no option 'sigam' \(options: sigma\)"),
        (perturbed("pag", sigma=1.0), r"'pag' has no option 'sigma' \(options: none\)"),
    ],
)
def test_what_var_refuses_before_the_first_step(var: VAR, stream: Stream, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        ask(var, stream)


def test_a_lender_cannot_serve_a_soft_stream_without_probabilities(var: VAR) -> None:
    soft = perturbed("soft").null.by("weak")
    with pytest.raises(StreamError, match="only beside a soft stream of the main model"):
        ask(var, soft, models={"weak": weak_of(var)})
    beside = from_callable(lambda base, a, b, step: base, asks=(soft, soft.by("main")))
    generate(var, 3, beside, seeds=[0], models={"weak": weak_of(var)})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights_run(var: VAR, dtype: torch.dtype) -> None:
    half = VAR(copy.deepcopy(var.transformer).to(dtype), var.tokenizer)
    images = generate(half, 3, "(softcfg + pag + seg(sigma=1.0) + slg) | vpg(0.5, redraw=true)", seeds=[0])
    assert torch.isfinite(images).all()


def test_published_presets_run_on_a_model_of_that_family(var: VAR) -> None:
    guidance = hguide.guidance.parse("cfg") | hguide.guidance.VPG.published("var-d16")
    assert torch.isfinite(generate(var, 3, guidance, seeds=[0])).all()


def test_the_generator_contract_holds_with_other_streams(var: VAR) -> None:
    check_generator(var, 3, guidance="(cfg + pag) | vpg(0.5, redraw=true)")

"""Corrupted prefixes and perturbed passes of Infinity, against dense masked passes over the whole sequence.

Tolerance: 2e-4 on bit differences of size 5, float32.
"""

from __future__ import annotations

import pytest
import torch
from tiny_infinity import SQUARE, text, tiny_infinity
from torch import Tensor

from hguide import COND, UNCOND, Corruption, Perturbation, Sampler, Scale, Step, Stream
from hguide.backends.attention import attend
from hguide.backends.corruption import donors
from hguide.backends.infinity import Infinity, ScaleSchedule
from hguide.backends.infinity.rope import rotate
from hguide.backends.infinity.text_pooling import pad
from hguide.backends.var.transformer import block_causal_mask, scale_of_token
from hguide.cost import cost
from hguide.errors import StreamError
from hguide.generate import StepRecord, generate
from hguide.guidance import VPG, from_callable, parse
from hguide.noise import SeededNoise
from hguide.testing import check_generator

ATOL = {"atol": 2e-4, "rtol": 0}
SEEDS = [3, 8]
TALL = ScaleSchedule(((1, 1), (2, 1), (4, 2), (6, 3)))


@pytest.fixture(scope="module")
def model() -> Infinity:
    return tiny_infinity()


def records_of(model: Infinity, stream: Stream) -> list[StepRecord]:
    """A run that asks for a stream and draws from the given one."""
    found: list[StepRecord] = []
    ask = from_callable(lambda base, other, step: base, asks=(stream,))
    generate(model, [text(5), text(3, seed=1)], ask, Sampler(), seeds=SEEDS, on_step=lambda r: found.append(r.keep()))
    return found


def inputs_of(model: Infinity, records: list[StepRecord], k: int) -> Tensor:
    """Input embeddings of scales 0 to k under the given condition, without level: `(b, l, C)`."""
    transformer = model.transformer
    state = model.begin([text(5), text(3, seed=1)], {COND: 3}, SeededNoise(SEEDS))
    parts = [transformer.modulation(pad([text(5).embedding, text(3, seed=1).embedding])).start]
    for record in records[:k]:
        model.advance(state, record.step, record.draw)
        parts.append(transformer.embed(model._input(state, record.step.index + 1)))
    return torch.cat(parts, 1)


def dense(model: Infinity, x: Tensor, source: Tensor, k: int) -> Tensor:
    """Bit differences of scale k where position i of the sequence takes input and rotation of position source[i]."""
    transformer, lengths = model.transformer, model.schedule.lengths[: k + 1]
    rope = transformer.rope(model.schedule)[:, source].unsqueeze(2)
    mask = block_causal_mask(lengths, x.device)

    def masked(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return attend(rotate(queries, rope), rotate(keys, rope).to(values.dtype), values, 1.0, mask)

    modulation = transformer.modulation(pad([text(5).embedding, text(3, seed=1).embedding]))
    moved = x.gather(1, source[..., None].expand_as(x))
    hidden = transformer._run(moved, scale_of_token(lengths, x.device), modulation, lambda j: masked)
    logits = transformer.forward_head(hidden[:, -lengths[-1] :], modulation)
    return (logits[..., 1::2] - logits[..., ::2]).unflatten(1, model.schedule.grids[k])


def sources(model: Infinity, corruption: Corruption, k: int) -> Tensor:
    """Which position each position of scales 0 to k stands for."""
    noise, schedule, rows = SeededNoise(SEEDS), model.schedule, []
    for j in range(k + 1):
        start, length = schedule.starts[j], schedule.lengths[j]
        own = torch.arange(length).expand(2, -1)
        if length > 1 and (j < k or corruption.queries):
            at = k if corruption.redraw or j == k else j
            step = Step(at, 4, 0, Scale(at, *schedule.grids[at]))
            own = donors(corruption, noise, step, start, length, own.device)
        rows.append(start + own)
    return torch.cat(rows, 1)


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("queries", [False, True])
@pytest.mark.parametrize("schedule", [SQUARE, TALL])
def test_corrupted_prefixes_equal_a_dense_pass(schedule: ScaleSchedule, redraw: bool, queries: bool) -> None:
    model, corruption = tiny_infinity(schedule=schedule), Corruption(0.5, redraw, queries)
    stream = COND.corrupted(corruption)
    records = records_of(model, stream)
    for k, record in enumerate(records):
        x, source = inputs_of(model, records, k), sources(model, corruption, k)
        torch.testing.assert_close(record.predictions[stream], dense(model, x, source, k), **ATOL)
        clean = torch.arange(source.shape[1]).expand(2, -1)
        torch.testing.assert_close(record.predictions[COND], dense(model, x, clean, k), **ATOL)
    assert not torch.allclose(records[-1].predictions[stream], records[-1].predictions[COND], atol=1e-2)


def test_skipping_no_attention_and_an_unblurred_query_are_the_limits(model: Infinity) -> None:
    """Blur of sigma 0 is the clean pass; on one token, attention to itself alone is the clean pass as well."""
    sharp = COND.perturbed(Perturbation("seg", (0, 1), (("sigma", 0.0),)))
    for record in records_of(model, sharp):
        torch.testing.assert_close(record.predictions[sharp], record.predictions[COND], **ATOL)
    alone = COND.perturbed(Perturbation("pag", (0, 1)))
    first, *later = records_of(model, alone)
    torch.testing.assert_close(first.predictions[alone], first.predictions[COND], **ATOL)
    assert all(not torch.allclose(r.predictions[alone], r.predictions[COND], atol=1e-2) for r in later)


def test_a_model_without_its_skipped_block_is_the_skipped_pass(model: Infinity) -> None:
    skipped = COND.perturbed(Perturbation("slg", (1,)))
    records = records_of(model, skipped)
    short = tiny_infinity()
    del short.transformer.blocks[1]
    object.__setattr__(short.transformer.config, "depth", 1)
    for record in records:
        x = inputs_of(model, records, record.step.index)
        own = torch.arange(x.shape[1]).expand(2, -1)
        torch.testing.assert_close(record.predictions[skipped], dense(short, x, own, record.step.index), **ATOL)


@pytest.mark.parametrize("text_form", ["cfg(w=3.0) | vpg(6.0, proportion=0.8)", "(cfg + pag + slg + seg) | ssg(0.5)"])
def test_images_depend_on_the_seed_only(model: Infinity, text_form: str) -> None:
    whole = generate(model, text(5), text_form, seeds=[5, 6, 7], deterministic=True)
    assert torch.equal(whole[[2, 0]], generate(model, text(5), text_form, seeds=[7, 5], deterministic=True))
    assert not torch.equal(whole, generate(model, text(5), "cfg(w=3.0)", seeds=[5, 6, 7], deterministic=True))


def test_vpg_without_corruption_is_cfg_bit_for_bit_and_the_published_preset_runs(model: Infinity) -> None:
    plain = generate(model, text(5), "cfg(w=3.0)", seeds=[0, 1])
    assert torch.equal(generate(model, text(5), "cfg(w=3.0) | vpg(3.0, proportion=0.0)", seeds=[0, 1]), plain)
    guidance = parse("cfg(w=3.0)") | VPG.published("infinity-2b")
    assert torch.isfinite(generate(model, text(5), guidance, seeds=[0])).all()
    assert cost(model, guidance).streams == 4


def test_what_is_refused(model: Infinity) -> None:
    with pytest.raises(StreamError, match="it serves no perturbation 'soft'"):
        generate(model, text(5), "softcfg", seeds=[0])
    with pytest.raises(StreamError, match="it serves no corrupted prefix"):
        generate(model.with_options(cfg_layer=-1), text(5), "vpg", seeds=[0])
    with pytest.raises(StreamError, match="it has the layers 0 to 1, asked for 4"):
        generate(model, text(5), "slg(layers=[4])", seeds=[0])


def test_the_generator_contract_holds_with_other_streams(model: Infinity) -> None:
    check_generator(model, text(5), guidance="(cfg + pag) | vpg(0.5, redraw=true)")


def test_the_cost_is_that_of_the_caches(model: Infinity) -> None:
    streams = {COND: 3, UNCOND: 3, COND.corrupted(Corruption(0.1)): 3}
    state = model.begin([text(5)], streams, SeededNoise([0]))
    assert model.run_bytes(1, 3).cache == state.cache.nbytes

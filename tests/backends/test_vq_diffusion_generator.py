"""VQ-Diffusion behind the contract: suite, guidance, options, seeds."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tiny_vq_diffusion import CODES, DIM, GRID, STEPS, WORDS, text, tiny_vq_diffusion
from torch import Tensor

from hguide.backends.text import TextEmbedding
from hguide.backends.var import Edit
from hguide.backends.vq_diffusion import Inference, Start, VQDiffusion
from hguide.errors import ConfigError, ShapeError, StreamError
from hguide.generate import StepRecord, generate, run
from hguide.grids import Step
from hguide.guidance import CFG, Identity
from hguide.noise import SeededNoise
from hguide.sampling import Replay, Sampler
from hguide.streams import COND, UNCOND
from hguide.testing import check_generator

PURITY = Inference(prior_rule=2, prior_weight=1.0)
HIGH_QUALITY = Inference(prior_rule=2, tokens_per_call=2, tokens_per_step=(1, 1, 1, 3, 4, 2))
SSG = "cfg(w=1.5) | ssg(0.5, prior=lowpass(cutoff=linear(0.9)), schedule=constant)"


class Records(list):
    def __call__(self, record: StepRecord) -> None:
        self.append(record.keep())


def records(generator: VQDiffusion, condition: object, guidance: object, **options: object) -> list[StepRecord]:
    kept = Records()
    generate(generator, condition, guidance, seeds=[0, 1], on_step=kept, **options)
    return kept


@pytest.mark.parametrize(
    ("condition", "inference"),
    [
        ("class", Inference()),
        ("text", Inference()),
        ("class", Inference(speed=3)),
        ("text", PURITY),
        ("class", HIGH_QUALITY),
    ],
)
def test_contract(condition: str, inference: Inference) -> None:
    generator = tiny_vq_diffusion(condition).with_options(inference=inference)
    check_generator(generator, 1 if condition == "class" else text(0), guidance=SSG)


def test_predictions_are_clamped_log_probabilities_of_the_codes() -> None:
    generator = tiny_vq_diffusion()
    for record in records(generator, 1, "none"):
        logits = record.predictions[COND]
        assert logits.shape == (2, *GRID, CODES)
        assert float(logits.min()) >= -70.0
        assert torch.allclose(logits.logsumexp(-1), torch.zeros(2, *GRID), atol=1e-5)


def test_cfg_in_log_probabilities_is_the_official_rule() -> None:
    generator = tiny_vq_diffusion()
    for record in records(generator, 1, CFG(w=2.5)):
        c, u = record.predictions[COND], record.predictions[UNCOND]
        assert torch.allclose(record.logits, u + 2.5 * (c - u), atol=1e-5)


def test_tokens_are_unmasked_step_by_step_and_all_at_the_end() -> None:
    generator = tiny_vq_diffusion()
    before = torch.zeros(2, 12, dtype=torch.bool)
    for record in records(generator, 2, "none"):
        assert record.step.visible is not None
        assert torch.equal(record.step.visible, before)
        before = record.draw.tokens.flatten(1) != CODES
        assert bool((before | ~record.step.visible).all())  # no token is masked again
    assert bool(before.all())


@pytest.mark.parametrize("inference", [PURITY, HIGH_QUALITY])
def test_prior_rules_reveal_as_many_tokens_as_planned_and_keep_the_visible(inference: Inference) -> None:
    generator = tiny_vq_diffusion().with_options(inference=inference)
    tokens = torch.full((2, 12), CODES)
    indices = []
    for record in records(generator, 0, "none", sampler=Sampler(top_p=0.9)):
        now = record.draw.tokens.flatten(1)
        planned = generator.call(record.step).reveal
        if planned:
            changed = now != tokens
            assert changed.sum(1).tolist() == [planned, planned]
            assert bool((tokens[changed] == CODES).all())
        tokens = now
        indices.append((record.step.index, record.step.call))
    assert bool((tokens != CODES).all())
    assert indices == [(k, n) for k, calls in enumerate(generator.calls) for n in range(len(calls))]


@pytest.mark.parametrize("condition", ["class", "text"])
@pytest.mark.parametrize("inference", [Inference(), PURITY])
def test_a_seed_gives_its_image_in_any_batch(condition: str, inference: Inference) -> None:
    generator = tiny_vq_diffusion(condition).with_options(inference=inference)
    given = [0, 2, 1] if condition == "class" else [text(0), text(1), text(2)]
    together = generate(generator, given, SSG, seeds=[5, 6, 7])
    alone = [generate(generator, one, SSG, seeds=[seed]) for one, seed in zip(given, (5, 6, 7), strict=True)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@pytest.mark.parametrize(
    "guidance",
    [
        "cfg(w=1.5) | ssg(0.5, prior=lowpass(cutoff=0.5), schedule=constant)",
        "cfg(w=1.5) | ssg(0.5, prior=lowpass(cutoff=ramp(1.0)), schedule=constant)",
        "cfg(w=1.5) | ssg(0.5, prior=lowpass(cutoff=1.0), schedule=constant, stride=2)",
        "cfg(w=1.5) | ssg(0.5, prior=lowpass(cutoff=0.5), schedule=constant, remember=mean, decay=0.8)",
        "cfg(w=1.5) | ssg(0.5, prior=lowpass(cutoff=0.5), schedule=constant, positions=masked)",
        "cfg(w=1.5) | ssg(0.5, prior=lowpass(cutoff=0.5), schedule=constant, positions=visible)",
    ],
)
def test_ssg_acts_after_cfg_and_before_the_filters(guidance: str) -> None:
    generator = tiny_vq_diffusion()
    plain, guided = records(generator, 1, "cfg(w=1.5)"), records(generator, 1, guidance)
    assert torch.equal(plain[0].logits, guided[0].logits)  # nothing is remembered yet
    assert any(not torch.equal(a.logits, b.logits) for a, b in zip(plain, guided, strict=True))
    for record in guided:
        c, u = record.predictions[COND], record.predictions[UNCOND]
        after_cfg, acts = u + 1.5 * (c - u), (record.logits - (u + 1.5 * (c - u))).abs().amax(-1).flatten(1) > 1e-4
        assert after_cfg.shape == record.logits.shape
        if "masked" in guidance:
            assert not acts[record.step.visible].any()
        if "visible" in guidance:
            assert not acts[~record.step.visible].any()


def test_ssg_sees_the_network_call_before_at_the_same_timestep() -> None:
    generator = tiny_vq_diffusion().with_options(inference=HIGH_QUALITY)
    kept = records(generator, 1, "ssg(0.7, prior=lowpass(cutoff=1.0), schedule=constant)")
    assert any(record.step.call > 0 for record in kept)
    for before, record in pairwise(kept):
        now, previous = record.predictions[COND], before.predictions[COND]
        assert torch.allclose(record.logits, now + 0.7 * (now - previous), atol=1e-4)


def test_replay_gives_the_recorded_map() -> None:
    generator = tiny_vq_diffusion().with_options(inference=PURITY)
    tokens = {(r.step.index, r.step.call): r.draw.tokens for r in records(generator, 1, "none")}
    other = SeededNoise([8, 9])
    state = run(generator, [1, 1], Identity(), Replay(tokens=tokens), noise=other)
    assert torch.equal(state.tokens, tokens[generator.count - 1, 0].flatten(1))


# Conditions


def test_null_streams() -> None:
    learned, mean = tiny_vq_diffusion(), tiny_vq_diffusion(learned_null=False)
    tokens = torch.full((1, 12), CODES)
    state = mean.begin([0], {COND: 0, UNCOND: 0}, SeededNoise([0]))
    step = mean.next_step(state)
    assert step is not None
    found = mean.predict(state, step, (UNCOND,), {})[UNCOND]
    table = mean.denoiser.blocks[0].ln2.emb
    table.weight[0] = table.weight.mean(0).clone()
    expected = mean.denoiser(tokens, STEPS - 1, torch.tensor([0])).log_softmax(-1)
    assert torch.allclose(found.flatten(1, 2), expected, atol=1e-5)
    assert learned.denoiser.blocks[0].ln2.emb.num_embeddings == 4
    assert learned.conditions([None, "b", 2], 3) == [3, 1, 2]
    given = generate(learned, [0], "none", seeds=[0], sampler=Sampler(top_k=1))
    negative = records(learned, 0, "cfg(w=1.0) + cfg(w=3.0)", negative=0)
    assert all(torch.equal(r.predictions[COND], r.predictions[UNCOND]) for r in negative)
    assert given.shape == (1, 3, 6, 8)


def test_null_text_needs_a_learnt_embedding_or_an_encoder() -> None:
    generator = tiny_vq_diffusion("text", learned_null=False)
    with pytest.raises(StreamError, match="no null condition"):
        generate(generator, text(0), "cfg(w=2.0)", seeds=[0])

    class Encoder:
        dim, fingerprint = DIM, "x"

        def encode(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
            rows = [text(len(prompt)) for prompt in prompts]
            return torch.stack([row.embedding for row in rows]), torch.stack([row.mask for row in rows])

    able = generator.with_options(text_encoder=Encoder())
    state = able.begin(able.conditions(["hello", "you"], 2), {COND: 0, UNCOND: 0}, SeededNoise([0, 1]))
    assert torch.equal(state.conditions["null"][1], text(0).embedding)
    assert torch.equal(state.conditions["given"][0], text(5).embedding)
    state = able.begin(["hello"], {COND: 0, UNCOND: 0}, SeededNoise([0]), negative="bad")
    assert torch.equal(state.conditions["null"][0], text(3).embedding)
    learned = tiny_vq_diffusion("text")
    state = learned.begin([text(0)], {COND: 0, UNCOND: 0}, SeededNoise([0]))
    assert torch.equal(state.conditions["null"][0], learned.denoiser.empty_text_embed)


def test_conditions_that_cannot_work() -> None:
    generator = tiny_vq_diffusion()
    for label in (3, -1, True, 1.0):
        with pytest.raises(ConfigError, match="a class is an integer from 0 to 2"):
            generator.conditions(label, 1)
    with pytest.raises(ConfigError, match="unknown class 'd'.*Known: a, b, c"):
        generator.conditions("d", 1)
    prompts = tiny_vq_diffusion("text")
    with pytest.raises(ConfigError, match="needs a text encoder"):
        prompts.conditions("a dog", 1)
    with pytest.raises(ConfigError, match="takes text embeddings of 6 channels, got 5"):
        prompts.conditions(TextEmbedding(torch.zeros(WORDS, 5), torch.ones(WORDS, dtype=torch.bool)), 1)
    with pytest.raises(ConfigError, match="takes texts of 5 tokens.*got 4"):
        prompts.conditions(TextEmbedding(torch.zeros(4, DIM), torch.ones(4, dtype=torch.bool)), 1)
    with pytest.raises(ConfigError, match="a class model takes no text encoder"):
        generator.with_options(text_encoder=type("E", (), {"dim": DIM})())
    with pytest.raises(ConfigError, match="no option 'more_smooth'"):
        generator.with_options(more_smooth=True)


# Editing


def test_an_edit_keeps_its_tokens_from_the_first_step_on() -> None:
    generator = tiny_vq_diffusion()
    picture = generate(generator, 1, seeds=[3])
    own = generator.encode(picture)
    assert len(own) == STEPS
    assert torch.equal(own[0], own[-1])
    keep = torch.zeros(GRID, dtype=torch.bool)
    keep[:, :2] = True
    edited = generator.with_options(edit=Edit(own, keep))
    for record in records(edited, 0, "cfg(w=2.0)"):
        assert torch.equal(record.draw.tokens[:, keep], own[0][:, keep].expand(2, -1))
        assert bool(record.step.visible[:, keep.flatten()].all())
    assert bool((record.draw.tokens[0] != record.draw.tokens[1]).any())
    assert generator.edit is None
    with pytest.raises(ConfigError, match="the edit lies on a grid"):
        generator.with_options(edit=Edit([torch.zeros(1, 2, 2, dtype=torch.int64)], torch.ones(2, 2, dtype=torch.bool)))


def test_a_start_runs_the_rest_of_the_process() -> None:
    generator = tiny_vq_diffusion()
    tokens = generator.encode(generate(generator, 1, seeds=[3]))[0]
    started = generator.with_options(start=Start(tokens, 0.5))
    assert started.count == 3
    assert started.calls[0][0].network == 2
    first = records(started, 1, "none")[0]
    assert 0 < int(first.step.visible.sum()) < first.step.visible.numel()
    images = generate(started, 1, seeds=[0, 1], deterministic=True)
    assert torch.equal(generate(started, 1, seeds=[1, 0], deterministic=True).flip(0), images)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"images are \(b, 3, 6, 8\), got"):
        tiny_vq_diffusion().encode(torch.zeros(1, 3, 8, 8))


def test_a_lender_is_driven_by_the_tokens_of_the_run() -> None:
    generator, weak = tiny_vq_diffusion(), tiny_vq_diffusion(seed=1)
    weak.tokenizer.load_state_dict(generator.tokenizer.state_dict())
    images = generate(generator, 1, "autoguidance(1.5)", seeds=[0], models={"weak": weak})
    assert not torch.equal(images, generate(generator, 1, "none", seeds=[0]))
    slow, slow_weak = (each.with_options(inference=HIGH_QUALITY) for each in (generator, weak))
    assert not torch.equal(generate(slow, 1, "autoguidance(1.5)", seeds=[0], models={"weak": slow_weak}), images)
    with pytest.raises(ConfigError, match="a lender needs the same inference"):
        generate(slow, 1, "autoguidance(1.5)", seeds=[0], models={"weak": weak})
    lent_to_itself = generate(generator, 1, "autoguidance(1.5)", seeds=[0], models={"weak": generator})
    assert torch.equal(lent_to_itself, generate(generator, 1, "none", seeds=[0]))


def test_a_lender_starts_from_the_map_of_the_run() -> None:
    generator = tiny_vq_diffusion()
    tokens = generator.encode(generate(generator, 0, seeds=[3]))
    edited = generator.with_options(edit=Edit(tokens, torch.ones(GRID, dtype=torch.bool)))
    with pytest.raises(StreamError, match="lender 'weak' starts from another map.*give it the same edit and start"):
        generate(edited, 0, "autoguidance(1.5)", seeds=[0], models={"weak": generator})
    lender = generator.with_options(edit=edited.edit)
    lent = generate(edited, 0, "autoguidance(1.5)", seeds=[0], models={"weak": lender})
    assert torch.equal(lent, generate(edited, 0, "none", seeds=[0]))


def test_codes_of_another_tokenizer_are_refused() -> None:
    with pytest.raises(ConfigError, match="the denoiser has 9 codes, the tokenizer 12; they were not trained together"):
        tiny_vq_diffusion(codes=9)


def test_fast_steps_tell_their_timesteps() -> None:
    generator = tiny_vq_diffusion().with_options(inference=Inference(speed=2))
    seen = [generator.call(Step(k, generator.count, 0, generator.scales[k])).network for k in range(generator.count)]
    assert seen == [5, 3, 1, 0]

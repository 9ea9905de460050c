"""The loop: seeds, streams, lenders, refusals, records, and the toy generator whose optimum is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import hguide
from hguide import COND, UNCOND, Binary, Categorical, Corruption, Perturbation, Sampler, StepRecord, Stream
from hguide.backends.toy import ToyGenerator
from hguide.errors import ConfigError, NumericalError, StreamError
from hguide.generate import generate, run
from hguide.guidance import SSG, Guidance, from_callable
from hguide.noise import SeededNoise
from hguide.testing import check_generator


def contrast(stream: Stream, strength: float = 0.5) -> Guidance:
    """A contrast with any one stream."""
    return from_callable(lambda base, other, step: base + strength * (base - other), asks=(stream,))


def records_of(generator: ToyGenerator, guidance: Any = None, **options: Any) -> list[StepRecord]:
    records: list[StepRecord] = []
    generate(generator, 1, guidance, seeds=[1, 2], on_step=lambda r: records.append(r.keep()), **options)
    return records


TOYS = {
    "categorical": {},
    "binary": {"channels": Binary(6)},
    "several calls, partial maps": {"calls": 3},
    "binary, several calls": {"channels": Binary(6), "calls": 2},
    "residual": {"residual": True},
    "not square": {"grids": ((1, 1), (2, 3), (5, 7))},
    "one scale": {"grids": ((3, 3),)},
}


@pytest.mark.parametrize("options", TOYS.values(), ids=TOYS.keys())
def test_the_toy_passes_the_contract(options: dict[str, Any]) -> None:
    guidance = "cfg(w=2.0)" if options.get("grids") == ((3, 3),) else None
    check_generator(ToyGenerator(**options), 1, guidance=guidance)


@pytest.mark.parametrize("options", TOYS.values(), ids=TOYS.keys())
def test_ssg_with_the_toys_optimum_returns_the_true_logits(options: dict[str, Any]) -> None:
    toy = ToyGenerator(**options)
    state = toy.begin([0, 1], {COND: toy.count - 1}, SeededNoise([3, 4]))
    memory: Any = {}
    worst_guided = worst_raw = 0.0
    while (step := toy.next_step(state)) is not None:
        truth = toy.truth(state, step, COND)
        logits = toy.predict(state, step, (COND,), {COND: 1.0})
        guided, memory = SSG(toy.optimal_strength, prior=toy.prior).apply(logits, step, memory)
        if step.positions is not None:
            truth = truth.flatten(1, 2).gather(1, step.positions[..., None].expand(-1, -1, truth.shape[-1]))
        worst_guided = max(worst_guided, (guided - truth).abs().max().item())
        worst_raw = max(worst_raw, (logits[COND] - truth).abs().max().item())
        toy.advance(state, step, toy.sample(state, step, guided, Sampler(), {COND: 1.0}))
    assert worst_guided < 1e-4
    assert worst_raw > 0.5 or toy.count == 1


def test_images_depend_on_the_seed_only() -> None:
    toy = ToyGenerator()
    whole = generate(toy, 1, "cfg(1.5) | ssg(0.5)", seeds=range(64), deterministic=True)
    for options in ({"batch_size": 8}, {"batch_size": 64}, {}):
        assert torch.equal(generate(toy, 1, "cfg(1.5) | ssg(0.5)", seeds=range(64), **options), whole)
    assert torch.equal(generate(toy, 1, "cfg(1.5) | ssg(0.5)", seeds=[63, 5]), whole[[63, 5]])


def test_conditions_go_with_their_seeds() -> None:
    toy = ToyGenerator()
    both = generate(toy, [0, 3], seeds=[7, 8])
    assert torch.equal(both[1:], generate(toy, 3, seeds=[8]))


def test_two_guidances_share_their_noise() -> None:
    """With guidance of strength 0 the same tokens are drawn: the noise does not depend on the guidance."""
    plain, zero = records_of(ToyGenerator()), records_of(ToyGenerator(), "cfg(0.0) | ssg(0.0)")
    assert all(torch.equal(a.draw.tokens, b.draw.tokens) for a, b in zip(plain, zero, strict=True))


def test_a_record_per_step_without_copies() -> None:
    seen: list[StepRecord] = []
    images = generate(ToyGenerator(), 1, "cfg", seeds=[1], on_step=seen.append)
    assert [record.step.index for record in seen] == [0, 1, 2, 3, 4]
    assert set(seen[1].predictions) == {COND, UNCOND}
    assert seen[0].weights == {COND: 1.0}
    assert seen[-1].logits.shape == (1, 8, 8, 16)
    assert seen[0].seeds == (1,)
    assert torch.equal(seen[-1].decode(), images)
    plain: list[StepRecord] = []
    generate(ToyGenerator(), 1, seeds=[1], on_step=plain.append)
    assert plain[0].logits is plain[0].predictions[COND]
    kept = plain[0].keep()
    assert kept.logits.data_ptr() != plain[0].logits.data_ptr()
    assert torch.equal(kept.logits, plain[0].logits)


def test_a_corrupted_prefix_is_another_prediction_with_the_draws_of_the_clean_one() -> None:
    corrupt = COND.corrupted(Corruption(0.5))
    record = records_of(ToyGenerator(), contrast(corrupt))[2]
    assert not torch.equal(record.predictions[COND], record.predictions[corrupt])
    assert COND.corrupted(Corruption(0.0)) == COND


def test_a_perturbed_stream_that_is_not_served_is_refused_by_name() -> None:
    generate(ToyGenerator(), 1, contrast(COND.perturbed(Perturbation("halved"))), seeds=[0])
    with pytest.raises(StreamError, match="toy refuses: it serves no perturbation 'pag' \\(served: halved\\)"):
        generate(ToyGenerator(), 1, contrast(COND.perturbed(Perturbation("pag", (1, 2)))), seeds=[0])


def test_lenders_follow_the_main_run() -> None:
    weak = ToyGenerator(seed=9)
    lent = COND.by("weak")
    seen: list[StepRecord] = []
    images = generate(ToyGenerator(), 1, contrast(lent), seeds=[0], models={"weak": weak}, on_step=seen.append)
    assert all(not torch.equal(r.predictions[COND], r.predictions[lent]) for r in seen)
    assert not torch.equal(images, generate(ToyGenerator(), 1, seeds=[0]))


def test_a_lender_that_is_the_generator_itself_is_main() -> None:
    toy = ToyGenerator()
    lent = generate(toy, 1, contrast(UNCOND.by("same")), seeds=range(4), models={"same": toy})
    assert torch.equal(lent, generate(toy, 1, contrast(UNCOND), seeds=range(4)))


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({}, "models has no 'weak'"),
        ({"weka": ToyGenerator()}, "did you mean 'weka'"),
        ({"weak": ToyGenerator(channels=Categorical(9))}, "must be the same"),
        ({"weak": ToyGenerator(grids=((1, 1), (2, 2)))}, "must be the same"),
        ({"weak": ToyGenerator(classes=5)}, "lender 'weak' has 5 classes, toy 4"),
    ],
)
def test_lenders_that_do_not_fit(models: dict[str, ToyGenerator], message: str) -> None:
    with pytest.raises(StreamError, match=message):
        generate(ToyGenerator(), 1, contrast(COND.by("weak")), seeds=[0], models=models)


def test_a_lender_whose_classes_have_other_names() -> None:
    toy, other = ToyGenerator(), ToyGenerator()
    toy.class_names, other.class_names = ("farm", "lake", "river", "sea"), ("farm", "river", "lake", "sea")
    with pytest.raises(StreamError, match="lender 'weak' calls 'river' what toy calls 'lake'"):
        generate(toy, 1, contrast(COND.by("weak")), seeds=[0], models={"weak": other})


def test_a_lender_with_another_tokenizer() -> None:
    other = ToyGenerator()
    other.palette = other.palette.flip(0)
    with pytest.raises(StreamError, match="another tokenizer than toy"):
        generate(ToyGenerator(), 1, contrast(COND.by("weak")), seeds=[0], models={"weak": other})


def test_streams_are_announced_with_their_last_use() -> None:
    announced: dict[Stream, int] = {}

    class Watched(ToyGenerator):
        def begin(self, condition: Any, streams: Any, noise: Any, negative: Any = None) -> Any:
            announced.update(streams)
            return super().begin(condition, streams, noise, negative)

    generate(Watched(), 1, "cfg(1.5, stop=0.6)", seeds=[0])
    assert announced == {COND: 4, UNCOND: 2}


def test_weights_reach_the_residual() -> None:
    toy = ToyGenerator(residual=True)
    plain, guided = generate(toy, 1, seeds=[0]), generate(toy, 1, "cfg(w=1.0) | cfg(0.0)", seeds=[0])
    assert torch.equal(plain, guided)
    tokens = {(r.step.index, 0): r.draw.tokens[:1] for r in records_of(toy)}
    from hguide.sampling import Replay

    images = [
        toy.decode(run(toy, [1], text, Replay(tokens=tokens), noise=SeededNoise([1])))
        for text in ("none", "cfg(w=3.0)")
    ]
    assert not torch.equal(*images)


def test_a_negative_condition_needs_a_null_stream() -> None:
    toy = ToyGenerator()
    plain = generate(toy, 1, "cfg(3.0)", seeds=[0])
    assert not torch.equal(plain, generate(toy, 1, "cfg(3.0)", seeds=[0], negative=2))
    with pytest.raises(StreamError, match="never asks for the null stream"):
        generate(toy, 1, "ssg", seeds=[0], negative=2)


def test_guidance_that_needs_full_maps_is_refused_before_the_first_step() -> None:
    class Whole(type(contrast(UNCOND))):  # type: ignore[misc]
        partial = False

    whole = Whole(function=lambda base, step: base, name="whole")
    generate(ToyGenerator(), 1, whole, seeds=[0])
    with pytest.raises(StreamError, match="needs full maps, but toy predicts partial maps"):
        generate(ToyGenerator(calls=2), 1, whole, seeds=[0])


def test_nan_logits_stop_and_name_step_and_stream() -> None:
    class Broken(ToyGenerator):
        def predict(self, state: Any, step: Any, streams: Any, weights: Any) -> dict[Stream, Tensor]:
            logits = super().predict(state, step, streams, weights)
            if step.index == 3:
                logits[UNCOND][0, 1, 1, 2] = float("nan")
            return logits

    with pytest.raises(NumericalError, match=r"step 3, call 0: not finite in the model's logits of stream \(null\)"):
        generate(Broken(), 1, "cfg(w=2.0)", seeds=[0])
    with pytest.raises(NumericalError, match="step 1.*guided logits"):
        generate(ToyGenerator(), 1, from_callable(lambda c, step: c / (step.index - 1), asks=()), seeds=[0])


def test_images_that_are_not_finite_are_not_handed_out() -> None:
    class Broken(ToyGenerator):
        def decode(self, state: Any) -> Tensor:
            images = super().decode(state)
            images[-1, 2, 3, 4] = float("nan")
            return images

    with pytest.raises(NumericalError, match="the decoded images are not finite"):
        generate(Broken(), 1, "cfg(w=2.0)", seeds=[0, 1])


def test_numbers_of_numpy_are_conditions() -> None:
    toy = ToyGenerator()
    wanted = generate(toy, [1, 2], seeds=[0, 1])
    for condition in (np.array([1, 2]), [np.int64(1), np.int32(2)], torch.tensor([1, 2]), range(1, 3)):
        assert torch.equal(generate(toy, condition, seeds=[0, 1]), wanted)
    assert torch.equal(generate(toy, np.int64(1), seeds=[0]), wanted[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 5}, "seeds are integers, one per image.*got 5"),
        ({"seeds": [0], "batch_size": 2.9}, 'batch_size is a whole number from 1, or "auto", got 2.9'),
        ({"seeds": [0], "batch_size": "max"}, "batch_size is a whole number from 1, or \"auto\", got 'max'"),
        ({"seeds": [0], "guidance": 3.0}, "guidance is a Guidance, its text form, or None, got 3.0"),
    ],
)
def test_arguments_of_another_type(options: dict[str, Any], message: str, unchecked_types: None) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(ToyGenerator(), 1, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [1, 2, 1]}, r"seeds repeat.*\[1\]"),
        ({"seeds": iter([1.5])}, "seeds are integers, got 1.5"),
        ({"seeds": [-1]}, "from 0 to"),
        ({"seeds": [0], "batch_size": 0}, "batch_size is a whole number from 1"),
        ({"seeds": [0], "models": {"main": ToyGenerator(seed=9)}}, '"main" is the generator itself'),
        ({"seeds": [0, 1, 2], "guidance": "cfg(2.0)", "negative": [1, 2]}, "3 seeds but 2 negatives"),
        ({"seeds": [0], "guidance": "cgf"}, "did you mean 'cfg'"),
        ({"seeds": [0], "condition": 4}, "from 0 to 3, got 4"),
        ({"seeds": [0], "condition": [1, 2]}, "1 seeds but 2 conditions"),
        ({"seeds": [0], "sampler": Sampler(top_k=17)}, "top_k = 17 but there are 16 tokens"),
    ],
)
def test_bad_input_says_what_is_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(hguide.HGuideError, match=message):
        generate(ToyGenerator(), options.pop("condition", 1), **options)


def test_one_scale_has_no_ramp() -> None:
    with pytest.raises(ConfigError, match="constant"):
        generate(ToyGenerator(grids=((3, 3),)), 1, "cfg(1.5)", seeds=[0])


def test_an_exception_in_a_run_leaves_nothing_behind() -> None:
    toy = ToyGenerator()
    before = generate(toy, 1, "cfg | ssg", seeds=[5])

    def stop(record: StepRecord) -> None:
        if record.step.index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(toy, 1, "cfg | ssg", seeds=[6], on_step=stop)
    assert torch.equal(before, generate(toy, 1, "cfg | ssg", seeds=[5]))


def test_a_generator_out_of_lockstep_runs_one_sample_at_a_time() -> None:
    sizes: list[int] = []

    class Lone(ToyGenerator):
        lockstep = False

        def begin(self, condition: Any, streams: Any, noise: Any, negative: Any = None) -> Any:
            sizes.append(len(condition))
            return super().begin(condition, streams, noise, negative)

    generate(Lone(), 1, seeds=range(3))
    assert sizes == [1, 1, 1]

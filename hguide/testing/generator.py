"""The contract of generators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hguide.errors import StreamError
from hguide.generate import StepRecord, generate, run
from hguide.generator import Binary, ScaleGenerator
from hguide.grids import Step
from hguide.guidance import Identity, from_callable
from hguide.noise import SeededNoise
from hguide.sampling import Replay, Sampler
from hguide.streams import COND, UNCOND, Stream
from hguide.testing.expect import expect

__all__ = ["check_generator"]


def check_generator(generator: ScaleGenerator, condition: Any, *, guidance: str | None = None) -> None:
    """Check steps, logits, purity, seeds, replay, interleaved and broken runs, and images of a generator.

    Args:
        generator: to check; runs about ten times with three samples.
        condition: one that it accepts.
        guidance: for the seed checks; `cfg` by default where the null stream is served.

    Raises:
        AssertionError: names what is not met.
    """
    text = guidance if guidance is not None else "cfg(1.5)" if generator.serves.null else "none"
    expect(generator.count >= 1, f"{generator.name}: has no steps.")
    _check_run(generator, condition)
    _check_streams(generator, condition)
    _check_seeds(generator, condition, text)
    _check_replay(generator, condition, text)
    _check_interleaved(generator, condition)
    _check_encode(generator, condition)


@dataclass
class _Kept:
    records: list[StepRecord] = field(default_factory=list)

    def __call__(self, record: StepRecord) -> None:
        self.records.append(record.keep())


def _batch(generator: ScaleGenerator, samples: int = 3) -> int:
    return samples if generator.lockstep else 1


def _check_run(generator: ScaleGenerator, condition: Any) -> None:
    name, b = generator.name, _batch(generator)
    noise = SeededNoise(range(b), generator.device)
    state = generator.begin(generator.conditions(condition, b), {COND: generator.count - 1}, noise)
    previous: Step | None = None
    while (step := generator.next_step(state)) is not None:
        expect(step.count == generator.count, f"{name}: step.count is {step.count}, count {generator.count}.")
        expect(step.scale == generator.scales[step.index], f"{name}: step {step.index} has another scale.")
        follows = (0, 0) if previous is None else (previous.index + 1, 0)
        repeats = None if previous is None else (previous.index, previous.call + 1)
        expect((step.index, step.call) in (follows, repeats), f"{name}: step {step.index}.{step.call} out of order.")
        expect(step.positions is None or generator.partial, f"{name}: partial maps, but `partial` is False.")
        logits = generator.predict(state, step, (COND,), {COND: 1.0})
        expect(set(logits) == {COND}, f"{name}: predict returns other streams than asked for at {step.index}.")
        place = step.grid if step.positions is None else (step.positions.shape[1],)
        wanted = (b, *place, generator.channels.width)
        got = logits[COND]
        expect(tuple(got.shape) == wanted, f"{name}: logits {tuple(got.shape)} at {step.index}, not {wanted}.")
        expect(got.dtype == torch.float32, f"{name}: logits are {got.dtype} at {step.index}.")
        # The logits of the step before were spoilt below: a generator that went on using them shows it here.
        expect(bool(torch.isfinite(got).all()), f"{name}: logits not finite at {step.index}, or still its own before.")
        kept = got.clone()
        draw = generator.sample(state, step, got, Sampler(top_k=1), {COND: 1.0})
        expect(torch.equal(got, kept), f"{name}: sample changes the logits at {step.index}.")
        tokens = wanted if isinstance(generator.channels, Binary) else wanted[:-1]
        expect(tuple(draw.tokens.shape) == tokens, f"{name}: tokens {tuple(draw.tokens.shape)} at {step.index}.")
        got.fill_(float("nan"))  # The loop may do with the logits what it likes.
        generator.advance(state, step, draw)
        previous = step
    expect(previous is not None and previous.index == generator.count - 1, f"{name}: ends before its last scale.")
    images = generator.decode(state)
    expect(images.dim() == 4 and images.shape[:2] == (b, 3), f"{name}: images are {tuple(images.shape)}.")
    inside = bool((images >= 0.0).all()) and bool((images <= 1.0).all())
    expect(inside, f"{name}: images leave [0, 1] or are not finite.")


def _check_streams(generator: ScaleGenerator, condition: Any) -> None:
    """A stream's logits do not depend on which others are live; what is not served is refused before the first step."""
    try:
        generate(generator, condition, from_callable(_first, asks=(Stream(model="nobody"),)), seeds=[0])
    except StreamError:
        pass
    else:
        raise AssertionError(f"{generator.name}: runs with a stream that nobody serves.")
    if not generator.serves.null:
        return
    alone, both = _Kept(), _Kept()
    b = _batch(generator)
    for kept, guidance in ((alone, Identity()), (both, from_callable(_first, asks=(UNCOND,)))):
        noise = SeededNoise(range(b), generator.device)
        run(generator, generator.conditions(condition, b), guidance, Sampler(top_k=1), noise=noise, on_step=kept)
    for one, two in zip(alone.records, both.records, strict=True):
        near = torch.allclose(one.predictions[COND], two.predictions[COND], atol=1e-3, rtol=1e-3)
        expect(near, f"{generator.name}: the given stream changes with others at {one.step.index}.")
        expect(UNCOND in two.predictions, f"{generator.name}: no null stream at {two.step.index}.")


def _first(given: Tensor, other: Tensor, step: Step) -> Tensor:
    return given


def _tokens(generator: ScaleGenerator, condition: Any, b: int, guidance: str = "none") -> dict[Any, Tensor]:
    kept = _Kept()
    noise = SeededNoise(range(b), generator.device)
    run(generator, generator.conditions(condition, b), guidance, noise=noise, on_step=kept)
    return {(record.step.index, record.step.call): record.draw.tokens for record in kept.records}


def _check_seeds(generator: ScaleGenerator, condition: Any, text: str) -> None:
    name = generator.name
    first = generate(generator, condition, text, seeds=[5, 6, 7], deterministic=True)
    again = generate(generator, condition, text, seeds=[7, 5], deterministic=True)
    expect(torch.equal(first[[2, 0]], again), f"{name}: a seed gives another image in another batch.")
    expect(not torch.equal(first[0], first[1]), f"{name}: two seeds give the same image.")


def _check_replay(generator: ScaleGenerator, condition: Any, text: str) -> None:
    b = _batch(generator)
    conditions: Sequence[Any] = generator.conditions(condition, b)
    tokens = _tokens(generator, condition, b, text)
    images = []
    for sampler in (Sampler(), Replay(tokens=tokens)):
        noise = SeededNoise(range(b), generator.device)
        images.append(generator.decode(run(generator, conditions, text, sampler, noise=noise)))
    expect(torch.allclose(images[0], images[1], atol=1e-5), f"{generator.name}: replayed tokens give another image.")


def _check_interleaved(generator: ScaleGenerator, condition: Any) -> None:
    """Two runs step by step in turn, a third left in the middle: each as if alone."""
    streams = {COND: generator.count - 1}

    def begin(seed: int) -> Any:
        return generator.begin(generator.conditions(condition, 1), streams, SeededNoise([seed], generator.device))

    def advance(state: Any) -> bool:
        step = generator.next_step(state)
        if step is None:
            return False
        logits = generator.predict(state, step, (COND,), {COND: 1.0})[COND]
        generator.advance(state, step, generator.sample(state, step, logits, Sampler(), {COND: 1.0}))
        return True

    def whole(seed: int) -> Tensor:
        state = begin(seed)
        while advance(state):
            pass
        return generator.decode(state)

    alone = whole(1), whole(2)
    left, one, two = begin(3), begin(1), begin(2)
    advance(left)
    while any((advance(one), advance(two))):
        pass
    same = torch.equal(alone[0], generator.decode(one)) and torch.equal(alone[1], generator.decode(two))
    expect(same, f"{generator.name}: runs disturb each other; state must not live on the generator.")


def _check_encode(generator: ScaleGenerator, condition: Any) -> None:
    images = generate(generator, condition, seeds=[0])
    try:
        tokens = generator.encode(images)
    except StreamError:
        return
    shapes = [tuple(each.shape[:3]) for each in tokens]
    wanted = [(1, *scale.grid) for scale in generator.scales]
    expect(shapes == wanted, f"{generator.name}: encode gives token maps {shapes}, not {wanted}.")

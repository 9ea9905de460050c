"""The loop: any generator, any guidance."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import ConfigError, ShapeError
from hguide.finite import check_all_finite, check_finite
from hguide.generator import Draw, Prepared, ScaleGenerator
from hguide.graphs import Outcome
from hguide.grids import Step
from hguide.guidance import Guidance, Identity, parse
from hguide.memory import automatic_batch_size
from hguide.noise import Noise, SeededNoise
from hguide.plan import plan
from hguide.sampling import Sampler
from hguide.streams import COND, Stream

__all__ = ["StepRecord", "generate", "run"]


@dataclass(frozen=True, eq=False)
class StepRecord:
    """What one step did, handed to `on_step`; its tensors are not copied and belong to the run: `keep()` copies.

    Attributes:
        step: where in the run.
        seeds: of the samples in the batch; empty where the noise is not seeded.
        predictions: raw logits per stream.
        logits: guided logits.
        draw: what was drawn.
        weights: linear weights per stream.
        decode: images `(b, 3, H, W)` of what is known after this step; to be called inside `on_step`.
    """

    step: Step
    seeds: tuple[int, ...]
    predictions: Mapping[Stream, Tensor]
    logits: Tensor
    draw: Draw
    weights: Mapping[Stream, float]
    decode: Callable[[], Tensor]

    def keep(self) -> StepRecord:
        """A copy on the CPU that outlives the run; `decode` is called once, now."""
        image = self.decode().cpu()
        extras = (self.draw.embedding, self.draw.confidence)
        draw = Draw(_copy(self.draw.tokens), *(None if extra is None else _copy(extra) for extra in extras))
        return replace(
            self,
            predictions={s: _copy(t) for s, t in self.predictions.items()},
            logits=_copy(self.logits),
            draw=draw,
            decode=lambda: image,
        )


OnStep = Callable[[StepRecord], None]


@dataclass(frozen=True, eq=False)
class _Settings:
    """What all batches of a call share."""

    guidance: Guidance
    sampler: Sampler
    negative: Any
    models: Mapping[str, ScaleGenerator]
    on_step: OnStep | None


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


@torch.no_grad()
def generate(
    generator: ScaleGenerator,
    condition: Any,
    guidance: Guidance | str | None = None,
    sampler: Sampler | None = None,
    *,
    seeds: Iterable[int],
    negative: Any = None,
    models: Mapping[str, ScaleGenerator] | None = None,
    on_step: OnStep | None = None,
    batch_size: int | Literal["auto"] | None = None,
    deterministic: bool = False,
) -> Float[Tensor, "b 3 H W"]:
    """One image per seed.

    The image of a seed depends on the seed, the condition, the model, the guidance and the sampler, not on the batch
    it is made in: with `deterministic` to the bit, else up to a token near a tie, because matrix products of other
    batch shapes differ in their last bits.

    Args:
        generator: from `hguide.load`, or your own `ScaleGenerator`.
        condition: one for all (a class index, a prompt), or a sequence with one per seed.
        guidance: a `Guidance`, its text form, or None.
        sampler: temperature and filters; by default draws from the guided distribution as it is.
        seeds: distinct integers from 0.
        negative: content of the null condition (a negative prompt), where the guidance asks for the null stream: one
            for all, or a list or tuple of one per seed where the family takes texts.
        models: lenders by name, for guidances that ask for streams of other models.
        on_step: receives a `StepRecord` per step and batch.
        batch_size: samples per run; all at once by default, as many as the free memory holds with "auto", which
            captured runs refuse.
        deterministic: one sample per run.

    Returns:
        `(b, 3, H, W)` in [0, 1], in the order of the seeds, on the generator's device.

    Raises:
        ConfigError: no seeds, repeated seeds, or options that cannot work.
        StreamError: the guidance asks for what the generator does not serve.
        NumericalError: logits or images are not finite; names the step.

    Example:
        >>> import hguide
        >>> images = hguide.generate(hguide.load("toy"), 1, "cfg(1.5) | ssg(0.5)", seeds=range(2))
        >>> tuple(images.shape)
        (2, 3, 32, 32)
    """
    checked = _checked_seeds(seeds)
    if batch_size not in (None, "auto") and not (hasattr(batch_size, "__index__") and int(batch_size) >= 1):
        raise ConfigError(f'batch_size is a whole number from 1, or "auto", got {batch_size!r}.')
    settings = _Settings(_guidance(guidance), sampler or Sampler(), negative, models or {}, on_step)
    several = isinstance(negative, list | tuple)
    if several and len(negative) != len(checked):
        raise ConfigError(
            f"{len(checked)} seeds but {len(negative)} negatives: give one negative, or one for each seed."
        )
    conditions = generator.conditions(condition, len(checked))
    if deterministic or not generator.lockstep:
        size = 1
    elif batch_size == "auto":
        live = plan(generator, settings.guidance, negative=negative, models=models)
        size = automatic_batch_size(generator, live, models, wanted=len(checked))
    else:
        size = int(batch_size or len(checked))
    images = []
    for first in range(0, len(checked), size):
        part = slice(first, first + size)
        noise = SeededNoise(checked[part], generator.device)
        batch = replace(settings, negative=negative[part]) if several else settings
        images.append(_images(generator, conditions[part], noise, batch))
    return torch.cat(images)


def _images(generator: ScaleGenerator, conditions: Sequence[Any], noise: SeededNoise, settings: _Settings) -> Tensor:
    """Images of one batch, by a captured run where the model keeps some and nobody looks on."""

    def work(conditions: Sequence[Any] | Prepared, noise: SeededNoise) -> Outcome:
        state, steps, finite = _run(generator, conditions, noise, settings)
        images = generator.decode(state)
        seen = torch.isfinite(images.sum(dtype=torch.float32))
        return Outcome(images, (*steps, None), torch.stack([*finite, seen]))

    if generator.captured is None or (key := _capture_key(generator, settings)) is None:
        outcome = work(conditions, noise)
    else:
        prepared = generator.prepare(conditions, settings.negative)
        outcome = generator.captured.outcome(key, prepared, noise, work)
    check_all_finite(outcome.steps, outcome.finite)
    return outcome.images


def _capture_key(generator: ScaleGenerator, settings: _Settings) -> Hashable | None:
    """What a captured run depends on beside its conditions and noise; None where a run is not for capture."""
    guidance, sampler = settings.guidance, settings.sampler
    # Recorded tokens, which other samplers replay, would be moved to the device in the middle of the run.
    if settings.on_step is not None or settings.models or type(sampler) is not Sampler:
        return None
    streams = plan(generator, guidance, negative=settings.negative)
    if any(stream.prefix != "sampled" or stream.perturb is not None for stream in streams):
        return None
    key = (guidance, sampler)
    try:
        hash(key)
    except TypeError:
        return None
    return key


def run(
    generator: ScaleGenerator,
    conditions: Sequence[Any],
    guidance: Guidance | str | None = None,
    sampler: Sampler | None = None,
    *,
    noise: Noise,
    negative: Any = None,
    models: Mapping[str, ScaleGenerator] | None = None,
    on_step: OnStep | None = None,
) -> Any:
    """One batch, with given noise; what `generate` is made of. Returns the generator's final state."""
    settings = _Settings(_guidance(guidance), sampler or Sampler(), negative, models or {}, on_step)
    state, steps, finite = _run(generator, conditions, noise, settings)
    check_all_finite(steps, torch.stack(finite) if finite else None)
    return state


def _run(
    generator: ScaleGenerator, conditions: Sequence[Any] | Prepared, noise: Noise, settings: _Settings
) -> tuple[Any, list[Step], list[Tensor]]:
    """The final state, and the steps whose logits are still to be looked at with what their device found."""
    guidance, models = settings.guidance, settings.models
    lenders = {name: lender for name, lender in models.items() if lender is not generator}
    last_use = plan(generator, guidance, negative=settings.negative, models=models)

    def server(stream: Stream) -> str:
        return stream.model if stream.model in lenders else "main"

    servers = {name: lenders.get(name, generator) for name in dict.fromkeys(map(server, last_use))}
    states = {}
    for name, model in servers.items():
        streams: dict[Stream, int] = {}
        for stream, last in last_use.items():
            if server(stream) == name:
                streams[stream.by("main")] = max(last, streams.get(stream.by("main"), 0))
        if isinstance(conditions, Prepared):
            states[name] = model.begin_prepared(conditions, streams, noise)
        else:
            states[name] = model.begin(conditions, streams, noise, settings.negative)
    state = states["main"]
    memory: Mapping[Any, Any] = {}
    steps: list[Step] = []
    finite: list[Tensor] = []
    while (step := generator.next_step(state)) is not None:
        asked = guidance.asks(COND, step)
        weights = guidance.weights(COND, step)
        twin_weights = _by_main_twin(weights)
        predictions: dict[Stream, Tensor] = {}
        for name in dict.fromkeys(map(server, asked)):
            own = [stream for stream in asked if server(stream) == name]
            wanted = tuple(dict.fromkeys(stream.by("main") for stream in own))
            logits = servers[name].predict(states[name], step, wanted, twin_weights if name == "main" else {})
            predictions.update({stream: logits[stream.by("main")] for stream in own if stream.by("main") in logits})
        _check_shapes(generator, step, asked, predictions, len(conditions))
        guided, memory = guidance.apply(predictions, step, memory)
        if guided.is_cuda:
            # To look now would make the program wait for the device at every step.
            steps.append(step)
            finite.append(torch.isfinite(guided.sum(dtype=torch.float32)))
        else:
            check_finite(guided, predictions, step)
        draw = generator.sample(state, step, guided, settings.sampler, twin_weights)
        for name, model in servers.items():
            model.advance(states[name], step, draw)
        if settings.on_step is not None:
            seeds = noise.seeds if isinstance(noise, SeededNoise) else ()
            decode = lambda: generator.decode(state)  # noqa: E731
            settings.on_step(StepRecord(step, seeds, predictions, guided, draw, weights, decode))
    return state, steps, finite


def _guidance(guidance: Guidance | str | None) -> Guidance:
    if not isinstance(guidance, Guidance | str | None):
        raise ConfigError(f"guidance is a Guidance, its text form, or None, got {guidance!r}.")
    return parse(guidance) if isinstance(guidance, str) else guidance or Identity()


def _checked_seeds(seeds: Iterable[int]) -> list[int]:
    if not isinstance(seeds, Iterable):
        raise ConfigError(f"seeds are integers, one per image, for instance seeds=range(8); got {seeds!r}.")
    found = list(seeds)
    if not found:
        raise ConfigError("seeds is empty: give one seed per image, for instance seeds=range(8).")
    wrong = [seed for seed in found if isinstance(seed, bool) or not hasattr(seed, "__index__")]
    if wrong:
        raise ConfigError(f"seeds are integers, got {wrong[0]!r}.")
    found = [int(seed) for seed in found]
    repeated = sorted({seed for seed in found if found.count(seed) > 1}) if len(set(found)) < len(found) else []
    if repeated:
        raise ConfigError(f"seeds repeat, which would make the same image twice: {repeated[:8]}.")
    return found


def _by_main_twin(weights: Mapping[Stream, float]) -> dict[Stream, float]:
    """Streams of another model count as their main twin."""
    total: dict[Stream, float] = {}
    for stream, weight in weights.items():
        total[stream.by("main")] = total.get(stream.by("main"), 0.0) + weight
    return total


def _check_shapes(
    generator: ScaleGenerator, step: Step, asked: Sequence[Stream], predictions: Mapping[Stream, Tensor], samples: int
) -> None:
    place = step.grid if step.positions is None else (step.positions.shape[1],)
    wanted = (samples, *place, generator.channels.width)
    for stream in asked:
        got = tuple(predictions[stream].shape) if stream in predictions else None
        if got != wanted:
            raise ShapeError(
                f"step {step.index}: {generator.name} predicted {got} for the stream ({stream}); expected {wanted}."
            )

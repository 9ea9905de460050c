"""The loop: any generator, any guidance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import ConfigError, NumericalError, ShapeError, StreamError, near_matches
from hguide.generator import Draw, ScaleGenerator
from hguide.grids import Step
from hguide.guidance import Guidance, Identity, parse
from hguide.memory import automatic_batch_size
from hguide.noise import Noise, SeededNoise
from hguide.sampling import Sampler
from hguide.streams import COND, UNCOND, Stream

__all__ = ["StepRecord", "generate", "plan", "run"]


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
        negative: content of the null condition (a negative prompt), where the guidance asks for the null stream.
        models: lenders by name, for guidances that ask for streams of other models.
        on_step: receives a `StepRecord` per step and batch.
        batch_size: samples per run; all at once by default, as many as the free memory holds with "auto".
        deterministic: one sample per run.

    Returns:
        `(b, 3, H, W)` in [0, 1], in the order of the seeds, on the generator's device.

    Raises:
        ConfigError: no seeds, repeated seeds, or options that cannot work.
        StreamError: the guidance asks for what the generator does not serve.
        NumericalError: logits are not finite; names the step.

    Example:
        >>> import hguide
        >>> images = hguide.generate(hguide.load("toy"), 1, "cfg(1.5) | ssg(0.5)", seeds=range(2))
        >>> tuple(images.shape)
        (2, 3, 32, 32)
    """
    checked = _checked_seeds(seeds)
    if batch_size not in (None, "auto") and int(batch_size or 0) < 1:
        raise ConfigError(f'batch_size is at least 1, or "auto", got {batch_size!r}.')
    conditions = generator.conditions(condition, len(checked))
    if deterministic or not generator.lockstep:
        size = 1
    elif batch_size == "auto":
        live = plan(generator, _guidance(guidance), negative=negative, models=models)
        size = automatic_batch_size(generator, live, models, wanted=len(checked))
    else:
        size = int(batch_size or len(checked))
    images = []
    for first in range(0, len(checked), size):
        noise = SeededNoise(checked[first : first + size], generator.device)
        batch = conditions[first : first + size]
        state = run(generator, batch, guidance, sampler, noise=noise, negative=negative, models=models, on_step=on_step)
        images.append(generator.decode(state))
        # Its memory is free before the next batch begins.
        del state
    return torch.cat(images)


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
    guidance = _guidance(guidance)
    sampler = sampler or Sampler()
    lenders = {name: lender for name, lender in (models or {}).items() if lender is not generator}
    last_use = plan(generator, guidance, negative=negative, models=models)

    def server(stream: Stream) -> str:
        return stream.model if stream.model in lenders else "main"

    servers = {name: lenders.get(name, generator) for name in dict.fromkeys(map(server, last_use))}
    states = {}
    for name, model in servers.items():
        streams: dict[Stream, int] = {}
        for stream, last in last_use.items():
            if server(stream) == name:
                streams[stream.by("main")] = max(last, streams.get(stream.by("main"), 0))
        states[name] = model.begin(conditions, streams, noise, negative)
    state = states["main"]
    memory: Mapping[Any, Any] = {}
    finite: list[tuple[Step, Tensor]] = []
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
            finite.append((step, torch.isfinite(guided).all()))
        else:
            _check_finite(guided, predictions, step)
        draw = generator.sample(state, step, guided, sampler, twin_weights)
        for name, model in servers.items():
            model.advance(states[name], step, draw)
        if on_step is not None:
            seeds = noise.seeds if isinstance(noise, SeededNoise) else ()
            decode = lambda: generator.decode(state)  # noqa: E731
            on_step(StepRecord(step, seeds, predictions, guided, draw, weights, decode))
    _check_all_finite(finite)
    return state


def _guidance(guidance: Guidance | str | None) -> Guidance:
    return parse(guidance) if isinstance(guidance, str) else guidance or Identity()


def _checked_seeds(seeds: Iterable[int]) -> list[int]:
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


def plan(
    generator: ScaleGenerator,
    guidance: Guidance,
    *,
    negative: Any = None,
    models: Mapping[str, ScaleGenerator] | None = None,
) -> dict[Stream, int]:
    """The streams of a run and their last step of use; what cannot be served is refused here, before the first step.

    Args:
        generator: that would run.
        guidance: that would guide it.
        negative: see `generate`.
        models: see `generate`.

    Raises:
        StreamError: names both sides and the reason.
    """
    models = models or {}
    last_use: dict[Stream, int] = {}
    for index, scale in enumerate(generator.scales):
        for stream in guidance.asks(COND, Step(index, generator.count, 0, scale)):
            last_use[stream] = index
    if generator.partial and not guidance.partial:
        raise StreamError(f"{guidance} needs full maps, but {generator.name} predicts partial maps at some steps.")
    for stream in last_use:
        if stream.model != "main" and stream.model not in models:
            near = near_matches(stream.model, models)
            raise StreamError(f"{guidance} asks for the stream ({stream}), but models has no {stream.model!r}: {near}")
        server = generator if stream.model == "main" else models[stream.model]
        refusal = server.serves.refusal(stream)
        if refusal:
            raise StreamError(f"{guidance} asks for the stream ({stream}), which {server.name} refuses: {refusal}.")
    for name in {stream.model for stream in last_use} - {"main"}:
        _check_lender(generator, name, models[name])
    if negative is not None and not any(stream.condition == "null" for stream in last_use):
        raise StreamError(f"a negative condition was given, but {guidance} never asks for the null stream ({UNCOND}).")
    return last_use


def _check_lender(generator: ScaleGenerator, name: str, lender: ScaleGenerator) -> None:
    if lender.scales != generator.scales or lender.channels != generator.channels:
        raise StreamError(
            f"lender {name!r} predicts {lender.channels} on {len(lender.scales)} scales, "
            f"{generator.name} {generator.channels} on {len(generator.scales)}: they must be the same."
        )
    if lender.tokenizer_hash != generator.tokenizer_hash:
        raise StreamError(f"lender {name!r} has another tokenizer than {generator.name}: its tokens mean other things.")


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


def _check_finite(guided: Tensor, predictions: Mapping[Stream, Tensor], step: Step) -> None:
    # A sum reads the map once and writes nothing; any NaN or infinity survives in it.
    if torch.isfinite(guided.sum(dtype=torch.float32)) or torch.isfinite(guided).all():
        return
    sources = [str(stream) for stream, logits in predictions.items() if not torch.isfinite(logits).all()]
    blame = f"the model's logits of stream ({sources[0]})" if sources else "the guided logits; lower the strength"
    raise NumericalError(f"step {step.index}, call {step.call}: not finite in {blame}.")


def _check_all_finite(finite: Sequence[tuple[Step, Tensor]]) -> None:
    """`_check_finite` at the end of a run, from what each step found."""
    if finite and not all(found := torch.stack([each for _, each in finite]).tolist()):
        step = finite[found.index(False)][0]
        raise NumericalError(
            f"step {step.index}, call {step.call}: not finite in the model's logits or in the guided ones; lower the "
            "strength, or load the model with a wider dtype."
        )

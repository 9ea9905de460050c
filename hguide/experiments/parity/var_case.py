"""A recorded run of VAR replayed through the generator: plain, with `more_smooth`, or with an edit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hguide.backends.editing import Edit, box_mask
from hguide.backends.smoothing import smooth_temperature, soft_weights
from hguide.backends.var.generator import VAR, VARState
from hguide.errors import ConfigError
from hguide.experiments.parity.recording import Recording
from hguide.experiments.parity.var_model import VARModel
from hguide.generator import Draw
from hguide.grids import Step
from hguide.guidance import CFG
from hguide.noise import RecordedNoise
from hguide.sampling import Candidates, Replay
from hguide.streams import COND, UNCOND

__all__ = ["INPUT", "replay_run", "tokens_by_scale"]

INPUT = "an input of the replay"


@torch.no_grad()
def replay_run(recording: Recording, model: VARModel, settings: Mapping[str, Any]) -> None:
    """Replay a run with its own tokens fed back, and compare what was recorded of it.

    Args:
        recording: of the run: `labels`, `s{k}.tokens`, and any of the quantities of the golden files.
        model: its networks.
        settings: `cfg`, `top_k`, `top_p`; for an edit `box` and `inpainting`; `labels` or `label` where stated.

    Raises:
        ConfigError: a setting is missing.
    """
    missing = [name for name in ("cfg", "top_k", "top_p") if name not in settings]
    if missing:
        raise ConfigError(f"config.json states no {', '.join(missing)} for {recording.case}.")
    generator = model.generator
    tokens = tokens_by_scale(recording, generator)
    _labels(recording, settings)
    if "edit_mask" in recording:
        generator = generator.with_options(edit=_edit(recording, generator, settings))
    if "s0.exp_noise" in recording:
        generator = generator.with_options(more_smooth=True, edit=generator.edit)
    sampler = Replay(top_k=settings["top_k"], top_p=settings["top_p"], tokens=tokens)
    state = _steps(recording, generator, CFG(float(settings["cfg"])), sampler)
    recording.compare("f_hat", state.latent)
    recording.compare("image", generator.decode(state))
    if "tf.logits" in recording or "tf.var_input" in recording:
        quantize = generator.tokenizer.quantize
        var_input = quantize.var_input(tokens, [scale.grid for scale in generator.scales])
        recording.compare("tf.var_input", var_input)
        recording.compare("tf.logits", generator.transformer(recording["labels"], var_input))


def tokens_by_scale(recording: Recording, generator: VAR) -> list[Tensor]:
    """The recorded tokens as `(b, h, w)` maps.

    Raises:
        ConfigError: the tokens of a scale were not recorded, or do not fill the maps of the schedule.
    """
    found = []
    for scale in generator.scales:
        name = f"s{scale.index}.tokens"
        if name not in recording:
            raise ConfigError(f"{recording.case} has no {name} to replay.")
        tokens = recording[name]
        if tokens.ndim != 2 or tokens.shape[1] != scale.tokens:
            raise ConfigError(
                f"{recording.case}: {name} has shape {tuple(tokens.shape)}; config.json has {scale.tokens} tokens."
            )
        found.append(tokens.unflatten(1, scale.grid))
    return found


def _labels(recording: Recording, settings: Mapping[str, Any]) -> None:
    stated = settings.get("labels", [settings["label"]] if "label" in settings else None)
    if stated is None:
        recording.leave("labels", INPUT)
    else:
        recording.compare("labels", torch.tensor(stated))


def _conditions(labels: Tensor, generator: VAR) -> list[int]:
    null = generator.transformer.config.null_label
    return generator.conditions([None if label == null else label for label in labels.tolist()], len(labels))


def _edit(recording: Recording, generator: VAR, settings: Mapping[str, Any]) -> Edit:
    """The edit as a user makes it: a box in fractions of the picture and the picture itself."""
    keep = box_mask(generator.scales[-1].grid, settings["box"], inside=not settings.get("inpainting", True))
    recording.compare("edit_mask", keep.float())
    recording.leave("image_in", INPUT)
    own = generator.encode((recording["image_in"] + 1.0) / 2.0)
    edit = Edit(own, keep)
    for scale, tokens in zip(generator.scales, own, strict=True):
        recording.compare(f"s{scale.index}.gt_tokens", tokens.flatten(1))
        recording.compare(f"s{scale.index}.keep_mask", edit.keep_at(scale.grid).float()[None, None])
    return edit


def _noise(recording: Recording, generator: VAR) -> RecordedNoise:
    draws = {}
    for scale in generator.scales:
        name = f"s{scale.index}.exp_noise"
        if name in recording:
            draws["exponential", scale.index, 0, "smooth"] = recording[name]
            recording.leave(name, INPUT)
    return RecordedNoise(draws)


def _steps(recording: Recording, generator: VAR, guidance: CFG, sampler: Replay) -> VARState:
    """All steps, both streams live at each of them: official runs predict the null stream even where CFG has none."""
    noise = _noise(recording, generator)
    last = generator.count - 1
    state = generator.begin(_conditions(recording["labels"], generator), {COND: last, UNCOND: last}, noise)
    memory: Mapping[Any, Any] = {}
    while (step := generator.next_step(state)) is not None:
        weights = guidance.weights(COND, step)
        with _watched(generator.transformer.blocks) as seen:
            predictions = generator.predict(state, step, (COND, UNCOND), weights)
        _compare_blocks(recording, step, seen)
        guided, memory = guidance.apply(predictions, step, memory)
        for name, logits in (("cond", predictions[COND]), ("uncond", predictions[UNCOND]), ("cfg", guided)):
            recording.compare(f"s{step.index}.logits_{name}", logits.flatten(1, 2))
        recording.compare(f"s{step.index}.logits_filtered", sampler.candidates(guided, step).dense(guided.shape[-1]))
        if generator.more_smooth:
            # The mix divides the rounding of the logits by a temperature down to 0.0135: as the tokens of other runs
            # are fed back, so are the guided logits here.
            guided = recording.tensors.get(f"s{step.index}.logits_cfg", guided.flatten(1, 2)).view_as(guided)
        draw = generator.sample(state, step, guided, sampler, weights)
        _compare_draw(recording, generator, step, sampler.candidates(guided, step), draw, noise)
        generator.advance(state, step, draw)
        recording.compare(f"s{step.index}.f_hat", state.latent)
        if step.index < last:
            following = generator.tokenizer.quantize.next_map(state.latent, generator.scales[step.index + 1].grid)
            recording.compare(f"s{step.index}.next_map", following)
    return state


@contextmanager
def _watched(blocks: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Input of the first block, then the output of each, of the forwards made inside."""
    seen: list[Tensor] = []
    first, *_ = blocks
    hooks = [first.register_forward_pre_hook(lambda block, given: seen.append(given[0]))]
    hooks += [block.register_forward_hook(lambda block, given, output: seen.append(output)) for block in blocks]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _compare_blocks(recording: Recording, step: Step, seen: Sequence[Tensor]) -> None:
    recording.compare(f"s{step.index}.x_in", seen[0])
    for block, output in enumerate(seen[1:]):
        recording.compare(f"s{step.index}.block{block}_out", output)


def _compare_draw(
    recording: Recording, generator: VAR, step: Step, kept: Candidates, draw: Draw, noise: RecordedNoise
) -> None:
    start = f"s{step.index}"
    dense = kept.dense(generator.channels.width)
    recording.compare(f"{start}.kept", kept.count())
    drawn = draw.tokens.flatten(1)
    dropped = dense.gather(-1, drawn.unsqueeze(-1)).squeeze(-1) == -torch.inf
    wrong = dropped | (drawn != recording[f"{start}.tokens"])
    recording.judge(f"{start}.tokens", int(wrong.sum()), "not among the tokens that the filters keep")
    codes = generator.tokenizer.quantize.lookup(draw.tokens) if draw.embedding is None else draw.embedding
    recording.compare(f"{start}.h", codes)
    if generator.more_smooth:
        recording.compare(f"{start}.tau", torch.tensor(smooth_temperature(step), dtype=torch.float64))
        mixed = Candidates(soft_weights(kept, noise, step), kept.channels).dense(generator.channels.width)
        recording.compare(f"{start}.soft_weights", _zeros(mixed))


def _zeros(weights: Float[Tensor, "b n v"]) -> Float[Tensor, "b n v"]:
    """Weights over all tokens, where those of dropped ones are marked by -inf."""
    return weights.masked_fill(weights == -torch.inf, 0.0)

"""A recorded run of HART replayed through the generator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hguide.backends.hart.generator import HART, HARTState
from hguide.backends.hart.official import official_sampler
from hguide.backends.hart.residual_diffusion import DiffusionStep
from hguide.backends.hart.smoothing import progress, smooth_temperature
from hguide.backends.text import TextEmbedding
from hguide.errors import ConfigError
from hguide.experiments.parity.recording import Recording
from hguide.generator import Draw
from hguide.grids import Step
from hguide.guidance import CFG
from hguide.noise import RecordedNoise
from hguide.sampling import Candidates, Replay
from hguide.schedules import Ramp
from hguide.streams import COND, UNCOND, Stream

__all__ = ["INPUT", "replay_run"]

INPUT = "an input of the replay"


@torch.no_grad()
def replay_run(
    recording: Recording, generator: HART, context: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> None:
    """Replay a run with its own tokens, orders and noise, and compare what was recorded of it.

    Args:
        recording: of the run: `s{k}.idx`, and any of the quantities of the golden files.
        generator: of its case.
        context: `context` and `context_mask`.
        settings: `cfg`, and the official arguments that differ from their defaults.

    Raises:
        ConfigError: a setting is missing, or tokens of a scale.
    """
    if "cfg" not in settings:
        raise ConfigError(f"config.json states no cfg for {recording.case}.")
    generator = generator.with_options(
        more_smooth=settings.get("more_smooth", False),
        maskgit_iterations=settings.get("num_maskgit_iters", 1),
        residual=settings.get("final_stage", 0) == 0,
    )
    inputs = _Inputs(recording, generator)
    samples = settings.get("nb", len(context["context"]))
    texts = [TextEmbedding(context["context"][i], context["context_mask"][i]) for i in range(samples)]
    filters = official_sampler(generator.count, settings.get("top_p", 0.0))
    sampler = Replay(top_k=filters.top_k, top_p=filters.top_p, tokens=inputs.tokens)
    guidance = CFG(float(settings["cfg"]), schedule=Ramp(hold_last=True))
    state = _steps(recording, generator, texts, guidance, sampler, RecordedNoise(inputs.draws))
    recording.compare("f_hat_final", state.latent)
    recording.compare("decoder_out_clamped", generator.tokenizer.decode_latent(state.latent))
    recording.compare("img", generator.decode(state))


class _Inputs:
    """Tokens by (scale, call), and the recorded draws as `RecordedNoise` takes them."""

    def __init__(self, recording: Recording, generator: HART) -> None:
        self.tokens: dict[tuple[int, int], Tensor] = {}
        self.draws: dict[tuple[str, int, int, str], Tensor] = {}
        last = generator.count - 1
        self._take(recording, "orders", ("order", last, 0, "order"))
        calls = [(k, 0, f"s{k}") for k in range(last)]
        calls += [(last, call, f"s{last}.it{call}") for call in range(generator.options.maskgit_iterations)]
        for k, call, start in calls:
            if f"{start}.idx" not in recording:
                raise ConfigError(f"{recording.case} has no {start}.idx to replay.")
            self.tokens[k, call] = recording[f"{start}.idx"]
            self._take(recording, f"{start}.gumbel_exp", ("exponential", k, call, "smooth"))
            if f"{start}.diff.noise0" in recording:
                self._diffusion(recording, f"{start}.diff", k, call)

    def _take(self, recording: Recording, name: str, key: tuple[str, int, int, str]) -> None:
        if name in recording:
            self.draws[key] = recording[name]
            recording.leave(name, INPUT)

    def _diffusion(self, recording: Recording, start: str, k: int, call: int) -> None:
        """The first half of the rows is the conditional one; the official program discards the other."""
        b, n = self.tokens[k, call].shape
        noise, later = recording[f"{start}.noise0"], recording[f"{start}.step_noise"]
        self.draws["normal", k, call, "diffusion"] = noise[: b * n].unflatten(0, (b, n))
        for place, i in enumerate(recording[f"{start}.i"].tolist()):
            self.draws["normal", k, call, f"diffusion-{i}"] = later[place, : b * n].unflatten(0, (b, n))
        for name in ("noise0", "step_noise"):
            recording.leave(f"{start}.{name}", INPUT)


def _steps(
    recording: Recording,
    generator: HART,
    texts: Sequence[TextEmbedding],
    guidance: CFG,
    sampler: Replay,
    noise: RecordedNoise,
) -> HARTState:
    """All steps, both streams live at each of them: official runs predict the null stream even where CFG has none."""
    last = generator.count - 1
    state = generator.begin(texts, {COND: last, UNCOND: last}, noise)
    recording.compare("cond_BD", state.conditioning.context)
    memory: Mapping[Any, Any] = {}
    while (step := generator.next_step(state)) is not None:
        start = f"s{step.index}" if step.index < last else f"s{last}.it{step.call}"
        weights = guidance.weights(COND, step)
        with _watched(generator) as seen:
            predictions = generator.predict(state, step, (COND, UNCOND), weights)
        predictions = _compare_forward(recording, generator, state, start, seen, predictions)
        guided, memory = guidance.apply(predictions, step, memory)
        recording.compare(f"{start}.logits_cfg", guided.flatten(1, -2))
        draw = generator.sample(state, step, guided, sampler, weights)
        _compare_draw(recording, generator, step, start, sampler.candidates(guided, step), draw)
        if step.index == last and generator.options.residual:
            _compare_residual(recording, generator, state, step, start, draw.tokens, weights)
        generator.advance(state, step, draw)
        if step.index < last:
            recording.compare(f"{start}.f_hat", state.latent)
            grid = generator.scales[step.index + 1].grid
            recording.compare(f"{start}.next_map", generator.tokenizer.quantize.next_map(state.latent, grid))
    return state


@dataclass
class _Seen:
    first: list[Tensor] = field(default_factory=list)
    attention: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


@contextmanager
def _watched(generator: HART) -> Iterator[_Seen]:
    """Input of the first block, output of its attention, output of each block, of the forwards made inside."""
    seen = _Seen()
    blocks = generator.transformer.blocks
    hooks = [blocks[0].register_forward_pre_hook(lambda block, given: seen.first.append(given[0]))]
    hooks += [blocks[0].attn.register_forward_hook(lambda layer, given, output: seen.attention.append(output))]
    hooks += [block.register_forward_hook(lambda layer, given, output: seen.outputs.append(output)) for block in blocks]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _compare_forward(
    recording: Recording,
    generator: HART,
    state: HARTState,
    start: str,
    seen: _Seen,
    predictions: Mapping[Stream, Tensor],
) -> dict[Stream, Tensor]:
    """Compare one forward; returns the logits to go on with."""
    recording.compare(f"{start}.x_in", seen.first[0])
    recording.compare(f"{start}.block0_attn_out", seen.attention[0])
    for block, output in enumerate(seen.outputs):
        recording.compare(f"{start}.block{block}_out", output)
    found = torch.cat([predictions[stream].flatten(1, -2) for stream in (COND, UNCOND)])
    name = f"{start}.logits"
    recorded = recording.tensors.get(name)
    if recorded is not None and recorded.shape[1] > found.shape[1]:
        # Of the first scale either the logits of all text tokens were recorded, or those of the last alone.
        found = generator.transformer.forward_head(seen.outputs[-1], state.conditioning)
    recording.compare(name, found)
    if recorded is None or not generator.options.more_smooth:
        return dict(predictions)
    # The mix divides the rounding of the logits by a temperature down to 0.1: as the tokens of other runs are fed back,
    # so are the logits here.
    halves = recorded[:, -predictions[COND].flatten(1, -2).shape[1] :].chunk(2)
    return {stream: half.view_as(predictions[stream]) for stream, half in zip((COND, UNCOND), halves, strict=True)}


def _compare_draw(recording: Recording, generator: HART, step: Step, start: str, kept: Candidates, draw: Draw) -> None:
    recording.compare(f"{start}.n_kept", kept.count())
    drawn = draw.tokens.flatten(1)
    dropped = kept.dense(generator.channels.width).gather(-1, drawn.unsqueeze(-1)).squeeze(-1) == -torch.inf
    wrong = dropped | (drawn != recording[f"{start}.idx"])
    recording.judge(f"{start}.idx", int(wrong.sum()), "not among the tokens that the filters keep")
    if draw.embedding is None:
        recording.compare(f"{start}.h", generator.tokenizer.quantize.lookup(draw.tokens))
    elif step.index < step.count - 1:
        recording.compare(f"{start}.h", draw.embedding)
    if generator.options.more_smooth:
        ratio = progress(step, generator.options.hold_last)
        recording.compare(f"{start}.gumbel_tau", torch.tensor(smooth_temperature(ratio)))


def _compare_residual(
    recording: Recording,
    generator: HART,
    state: HARTState,
    step: Step,
    start: str,
    tokens: Tensor,
    weights: Mapping[Stream, float],
) -> None:
    """The residual head, step by step; of the recorded rows the second half is the one that the program discards."""
    start, tokens = f"{start}.diff", tokens.flatten(1)
    codes = generator.tokenizer.quantize.embedding(tokens)
    conditions = [generator.transformer.residual_condition(state.hidden[s], codes) for s in (COND, UNCOND)]
    recording.compare(f"{start}.z", torch.cat(conditions).flatten(0, 1))
    recording.compare(f"{start}.cfg", torch.tensor(-weights.get(UNCOND, 0.0), dtype=torch.float64))
    steps: list[DiffusionStep] = []
    out = generator.residual(state, step, tokens, weights, steps.append)
    recording.compare(f"{start}.i", torch.tensor([each.index for each in steps]))
    recording.compare(f"{start}.t", torch.tensor([each.timestep for each in steps]))
    named = {"x_t": "noisy", "net_out_cfg": "guided", "pred_xstart": "start", "mean": "mean"}
    for name, own in (*named.items(), ("log_variance", "log_variance")):
        _compare_half(recording, f"{start}.{name}", torch.stack([getattr(each, own).flatten(0, 1) for each in steps]))
    _compare_half(recording, f"{start}.net_out_raw", torch.stack([each.raw.flatten(0, 2) for each in steps]))
    _compare_half(recording, f"{start}.out", out.flatten(0, 1), axis=0)


def _compare_half(recording: Recording, name: str, found: Tensor, axis: int = 1) -> None:
    """Compare the rows that were found with the first ones recorded; the others count as equal."""
    recorded = recording.tensors.get(name)
    if recorded is not None and found.shape[axis] < recorded.shape[axis]:
        rest = recorded.narrow(axis, found.shape[axis], recorded.shape[axis] - found.shape[axis])
        found = torch.cat([found, rest], dim=axis)
    recording.compare(name, found)

"""A recorded run of VQ-Diffusion, replayed step by step from the recorded tokens and once more from the first alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.vq_diffusion.generator import VQDiffusion, VQDiffusionState
from hguide.backends.vq_diffusion.inference import Call
from hguide.backends.vq_diffusion.log_probabilities import normalised, with_mask_row
from hguide.backends.vq_diffusion.posterior import posterior
from hguide.backends.vq_diffusion.purity import revealed, selection_score, sharpened
from hguide.backends.vq_diffusion.truncation import filtered
from hguide.errors import ConfigError
from hguide.experiments.parity.recording import Recording
from hguide.experiments.parity.vq_diffusion_model import VQDiffusionModel
from hguide.generate import StepRecord, run
from hguide.grids import Step
from hguide.guidance import CFG, Guidance, Identity
from hguide.noise import RecordedNoise
from hguide.sampling import Candidates, Sampler
from hguide.streams import COND

__all__ = ["INPUT", "replay_run"]

INPUT = "an input of the replay"
# The official program counts the tokens of the last timestep as those of its largest map.
COUNT_OF_LAST = 1024
IMAGE_SCALE = 255.0


@dataclass
class _Found:
    """What the replay computed, call by call."""

    stacked: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    rows: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    wrong: int = 0

    def compare(self, recording: Recording) -> None:
        for name, parts in self.stacked.items():
            recording.compare(name, torch.stack(parts))
        for name, parts in self.rows.items():
            recording.compare(name, torch.cat(parts))


@torch.no_grad()
def replay_run(recording: Recording, model: VQDiffusionModel, settings: Mapping[str, Any]) -> None:
    """Replay a run with its uniforms: teacher-forced for every recorded quantity, free-running for tokens and image.

    Args:
        recording: of the run.
        model: of its folder.
        settings: of the run, by their official names.

    Raises:
        ConfigError: the run has another number of network calls than its settings say.
    """
    generator = model.with_inference(settings)
    places = [(index, number) for index, calls in enumerate(generator.calls) for number in range(len(calls))]
    if len(places) != len(recording["x_t"]):
        raise ConfigError(
            f"{recording.case} has {len(recording['x_t'])} network calls, its settings make {len(places)}."
        )
    scale = float(settings["guidance_scale"])
    guidance: Guidance = Identity() if scale == 1.0 else CFG(w=scale)
    sampler = Sampler(top_p=float(settings["truncation_rate"]))
    noise = _noise(recording, generator, places)
    conditions = model.conditions(settings)
    found = _teacher_forced(recording, generator, conditions, guidance, sampler, noise, places)
    found.compare(recording)
    _free_running(recording, generator, conditions, guidance, sampler, noise, found.wrong)
    for name in ("uniform", "mult_exp"):
        recording.leave(name, INPUT)


def _noise(recording: Recording, generator: VQDiffusion, places: Sequence[tuple[int, int]]) -> RecordedNoise:
    draws = {("uniform", *place, "token"): u.mT for place, u in zip(places, recording["uniform"], strict=True)}
    if "mult_exp" in recording:
        # One row for each sample, at the calls that choose positions.
        chooses = [place for place in places if generator.calls[place[0]][place[1]].reveal]
        rows = recording["mult_exp"].chunk(len(chooses))
        draws |= {("exponential", *place, "select"): e[..., None] for place, e in zip(chooses, rows, strict=True)}
    return RecordedNoise(draws)


def _teacher_forced(
    recording: Recording,
    generator: VQDiffusion,
    conditions: Sequence[Any],
    guidance: Guidance,
    sampler: Sampler,
    noise: RecordedNoise,
    places: Sequence[tuple[int, int]],
) -> _Found:
    asked = guidance.asks(COND, Step(0, generator.count, 0, generator.scales[0]))
    state = generator.begin(conditions, dict.fromkeys(asked, generator.count - 1), noise)
    found = _Found()
    seen: list[Tensor] = []
    hook = generator.denoiser.register_forward_hook(lambda module, given, output: seen.append(output))
    try:
        for place, before, after in zip(places, recording["x_t"], recording["x_prev"], strict=True):
            state.tokens, (state.index, state.call) = before.long(), place
            step = generator.next_step(state)
            assert step is not None
            predictions = generator.predict(state, step, asked, {})
            for name, logits in zip(("logits_cond", "logits_uncond"), seen.pop().chunk(len(asked)), strict=False):
                found.stacked[name].append(logits.mT)
            guided, _ = guidance.apply(predictions, step, {})
            log_x0 = filtered(guided.flatten(1, 2), sampler, step)
            found.stacked["log_x0_cfg"].append(with_mask_row(normalised(guided.flatten(1, 2))).mT)
            found.stacked["log_x0_trunc"].append(log_x0.mT)
            _of_draw(found, generator, state, step, log_x0, noise)
            drawn = generator.sample(state, step, guided, sampler, {}).tokens.flatten(1)
            found.wrong += int((drawn != after).sum())
    finally:
        hook.remove()
    return found


def _of_draw(
    found: _Found,
    generator: VQDiffusion,
    state: VQDiffusionState,
    step: Step,
    log_x0: Float[Tensor, "b l c"],
    noise: RecordedNoise,
) -> None:
    """The distribution that is drawn from, and what a prior rule chooses."""
    call = generator.call(step)
    found.stacked["net_timestep"].append(torch.tensor(call.network))
    found.stacked["posterior_timestep"].append(torch.tensor(call.posterior))
    # The official program forms the posterior also where a prior rule then sets it aside.
    from_posterior = posterior(log_x0, state.tokens, call.posterior, generator.schedule)
    found.stacked["log_posterior"].append(from_posterior.mT)
    if not generator.inference.rule:
        return
    drawn = sharpened(log_x0, generator.inference.prior_weight) if call.reveal else from_posterior
    found.stacked["sample_in"].append(drawn.mT)
    found.stacked["x_sampled"].append(Sampler().draw(Candidates(drawn, None), noise, step))
    found.stacked["sampled_count"].append(_revealed_so_far(generator, step, call, len(log_x0)))
    if call.reveal:
        visible = state.tokens != generator.denoiser.config.mask
        score = selection_score(log_x0, visible, generator.inference.rule)
        _, order = revealed(score, call.reveal, noise.exponential(step, "select", score.shape[1], 1))
        found.rows["mult_score"].append(score)
        found.rows["mult_n"].append(torch.full((len(score),), call.reveal))
        padding = order.new_full((len(order), score.shape[1] - call.reveal), -1)
        found.rows["mult_sel"].append(torch.cat([order, padding], dim=1))


def _revealed_so_far(generator: VQDiffusion, step: Step, call: Call, samples: int) -> Int[Tensor, " b"]:
    """Tokens that the calls of this timestep have revealed, this one included."""
    calls = generator.calls[step.index][: step.call + 1]
    return torch.full((samples,), sum(each.reveal for each in calls) if call.reveal else COUNT_OF_LAST)


def _free_running(
    recording: Recording,
    generator: VQDiffusion,
    conditions: Sequence[Any],
    guidance: Guidance,
    sampler: Sampler,
    noise: RecordedNoise,
    wrong: int,
) -> None:
    maps: list[Tensor] = []

    def keep(record: StepRecord) -> None:
        maps.append(record.draw.tokens.flatten(1).clone())

    state = run(generator, conditions, guidance, sampler, noise=noise, on_step=keep)
    first = torch.full_like(maps[0], generator.denoiser.config.mask)
    recording.compare("x_t", torch.stack([first, *maps[:-1]]))
    differ = int((torch.stack(maps) != recording["x_prev"]).sum())
    recording.judge("x_prev", wrong + differ, f"{wrong} places differ teacher-forced, {differ} free-running")
    recording.compare("tokens", state.tokens)
    recording.compare("image", generator.decode(state) * IMAGE_SCALE)

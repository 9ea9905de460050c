"""Recorded parts of VQ-Diffusion: one forward of the denoiser, the posterior, the tokenizer; schedules and tables."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from hguide.backends.vq_diffusion.codebook_map import PUBLISHED, codes_in_use, inverse
from hguide.backends.vq_diffusion.generator import VQDiffusion
from hguide.backends.vq_diffusion.noise_schedule import NoiseSchedule
from hguide.backends.vq_diffusion.posterior import posterior
from hguide.experiments.parity.recording import Recording
from hguide.experiments.parity.vq_diffusion_model import VQDiffusionModel
from hguide.experiments.parity.vq_diffusion_run import IMAGE_SCALE, INPUT
from hguide.noise import RecordedNoise
from hguide.streams import COND

__all__ = ["compare_maps", "compare_schedules", "replay_fixtures"]

_INPUTS = (
    *("debug.x_t", "debug.timestep", "cond_emb", "quantize_to_full", "vqgan.decode_tokens", "vqgan.image_in"),
    *("posterior_test.log_x0", "posterior_test.x_t", "posterior_test.timesteps"),
)
_SCHEDULE = re.compile(r"T(\d+)_K(\d+)\.(\w+)")


@torch.no_grad()
def replay_fixtures(recording: Recording, model: VQDiffusionModel) -> None:
    """Replay the parts.

    Args:
        recording: `fixtures` of a folder.
        model: of the folder.
    """
    generator = model.generator
    for name in _INPUTS:
        recording.leave(name, INPUT)
    _forward(recording, model)
    log_x0, tokens = recording["posterior_test.log_x0"].mT, recording["posterior_test.x_t"].long()
    timesteps = recording["posterior_test.timesteps"].tolist()
    found = [posterior(log_x0, tokens, timestep, generator.schedule).mT for timestep in timesteps]
    recording.compare("posterior_test.out", torch.stack(found))
    if "full_to_quantize" in recording:
        recording.compare("full_to_quantize", inverse(generator.tokenizer.codes, generator.tokenizer.config.vocabulary))
    maps = recording["vqgan.decode_tokens"].long().unflatten(1, generator.denoiser.config.grid)
    recording.compare("vqgan.decode_image", _image(generator, maps))
    if "vqgan.tokens_from_image" in recording:
        image = recording["vqgan.image_in"].float() / IMAGE_SCALE
        recording.compare("vqgan.tokens_from_image", generator.encode(image)[0].flatten(1))


def _forward(recording: Recording, model: VQDiffusionModel) -> None:
    generator = model.generator
    seen: dict[str, Tensor] = {}
    denoiser = generator.denoiser
    watched = {"content_emb": denoiser.content_emb} | {f"block_{j}": block for j, block in enumerate(denoiser.blocks)}
    hooks = [
        module.register_forward_hook(lambda module, given, output, name=name: seen.update({name: output}))
        for name, module in watched.items()
    ]
    try:
        conditions = model.conditions(model.settings["runs"][0])
        given = generator.begin(conditions, {COND: 0}, RecordedNoise({})).conditions["given"]
        timestep = int(recording["debug.timestep"][0])
        seen["logits"] = denoiser(recording["debug.x_t"].long(), timestep, given).mT
    finally:
        for hook in hooks:
            hook.remove()
    for name, output in seen.items():
        recording.compare(f"debug.{name}", output)


def _image(generator: VQDiffusion, maps: Tensor) -> Tensor:
    return (generator.tokenizer.decode(maps) + 1.0) / 2.0 * IMAGE_SCALE


def compare_schedules(recording: Recording) -> None:
    """Compare recorded schedules, bit for bit.

    Args:
        recording: `T{T}_K{K}.NAME`, float64 probabilities and float32 logarithms.
    """
    for name in recording.tensors:
        stated = _SCHEDULE.fullmatch(name)
        if stated is None:
            continue
        schedule = NoiseSchedule(int(stated[1]), int(stated[2]))
        own = {**schedule.probabilities, **schedule.logarithms}
        if stated[3] in own:
            recording.compare(name, own[stated[3]])


def compare_maps(recording: Recording) -> None:
    """Compare the tables of codes that this package carries with the recorded ones.

    Args:
        recording: `quantize_to_full_{K}`.
    """
    for (codes, vocabulary), name in PUBLISHED.items():
        if name in recording:
            recording.compare(name, codes_in_use(codes, vocabulary))

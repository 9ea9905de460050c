"""A recorded encoding and decoding by VAR's tokenizer, or by its quantizer alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hguide.backends.checkpoints import load_into
from hguide.backends.multiscale_quantizer import MultiScaleQuantizer
from hguide.backends.var.tokenizer import VARTokenizer
from hguide.errors import ConfigError
from hguide.experiments.parity.recording import Recording
from hguide.grids import Grid

__all__ = ["replay_quantizer", "replay_tokenizer"]

QUANTIZE = "quantize."
INPUT = "an input of the replay"
GRADIENT_SCALE = 100.0


@torch.no_grad()
def replay_tokenizer(recording: Recording, tokenizer: VARTokenizer, settings: Mapping[str, Any]) -> None:
    """Encode a recorded image and decode it again.

    Args:
        recording: `image` in [-1, 1], and any of the quantities of the golden files.
        tokenizer: in evaluation mode.
        settings: `sub_patch_nums`, the schedule of the recorded `sub{k}.tokens`, where there are any.
    """
    recording.leave("image", INPUT)
    grids = tokenizer.config.grids
    f = tokenizer.latent(recording["image"])
    recording.compare("f", f)
    latents = _compare_encoding(recording, tokenizer.quantize, f, grids)
    recording.compare("recon", tokenizer.decode_latent(latents[-1]))
    recording.compare("decode_f", tokenizer.decode_latent(f))
    if "recon_from_tokens" in recording:
        recording.compare("recon_from_tokens", tokenizer.decode(_recorded_tokens(recording, grids)))
    if "sub_patch_nums" in settings:
        tokens, latents_of_sub = tokenizer.quantize.encode_with_latents(f, _square(settings["sub_patch_nums"]))
        for k, each in enumerate(tokens):
            recording.compare(f"sub{k}.tokens", each.flatten(1))
        recording.compare("sub.f_hat_last", latents_of_sub[-1])
    if "grad_w" in recording:
        _compare_gradient(recording, tokenizer, latents[-1])


def replay_quantizer(recording: Recording, residual_ratio: float) -> None:
    """Quantize a recorded latent map with the weights recorded beside it; its tokens tell the schedule.

    Args:
        recording: `f`, `quantize.*`, and any of `s{k}.tokens`, `s{k}.f_hat`, `var_input`.
        residual_ratio: weight of the convolution in phi.
    """
    weights = {n.removeprefix(QUANTIZE): v for n, v in recording.tensors.items() if n.startswith(QUANTIZE)}
    for name in ("f", *(QUANTIZE + name for name in weights)):
        recording.leave(name, INPUT)
    vocabulary, channels = weights["embedding.weight"].shape
    convolutions = len({name.split(".")[2] for name in weights if name.startswith("quant_resi.")})
    quantizer = MultiScaleQuantizer(vocabulary, channels, convolutions, residual_ratio)
    load_into(quantizer, weights)
    with torch.no_grad():
        _compare_encoding(recording, quantizer, recording["f"], _recorded_schedule(recording))


def _compare_encoding(
    recording: Recording, quantizer: MultiScaleQuantizer, f: Tensor, grids: Sequence[Grid]
) -> list[Tensor]:
    tokens, latents = quantizer.encode_with_latents(f, grids)
    for k, (each, latent) in enumerate(zip(tokens, latents, strict=True)):
        recording.compare(f"s{k}.tokens", each.flatten(1))
        recording.compare(f"s{k}.f_hat", latent)
    if "var_input" in recording:
        recording.compare("var_input", quantizer.var_input(tokens, grids))
    return latents


@torch.enable_grad()
def _compare_gradient(recording: Recording, tokenizer: VARTokenizer, latent: Tensor) -> None:
    """d loss / d f_hat of loss = 100 mean(decode(f_hat) w), through the clamp."""
    recording.leave("grad_w", INPUT)
    latent = latent.detach().requires_grad_(True)
    loss = GRADIENT_SCALE * (tokenizer.decode_latent(latent) * recording["grad_w"]).mean()
    (gradient,) = torch.autograd.grad(loss, latent)
    recording.compare("grad_loss", loss)
    recording.compare("grad_f_hat", gradient)


def _recorded_tokens(recording: Recording, grids: Sequence[Grid]) -> list[Tensor]:
    return [recording[f"s{k}.tokens"].unflatten(1, grid) for k, grid in enumerate(grids)]


def _recorded_schedule(recording: Recording) -> tuple[Grid, ...]:
    scales = sorted(int(m[1]) for name in recording.tensors if (m := re.fullmatch(r"s(\d+)\.tokens", name)))
    counts = [recording[f"s{k}.tokens"].shape[1] for k in scales]
    sides = [math.isqrt(count) for count in counts]
    if not sides or scales != list(range(len(scales))) or any(s * s != c for s, c in zip(sides, counts, strict=True)):
        raise ConfigError(f"{recording.case}: its tokens {counts} do not tell a schedule of square maps.")
    return _square(sides)


def _square(sides: Sequence[int]) -> tuple[Grid, ...]:
    return tuple((side, side) for side in sides)

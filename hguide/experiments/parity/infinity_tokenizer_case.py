"""Recorded encodings by Infinity's tokenizer, and the inputs and targets of the transformer's training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from hguide.backends.checkpoints import read_state_dict
from hguide.backends.infinity.bits import MultiScaleBits, codes_of, enlarge, quantize
from hguide.backends.infinity.training_inputs import TrainingInputs, training_inputs
from hguide.errors import ConfigError
from hguide.experiments.parity.infinity_case import INPUT, NO_PICTURES, embeddings
from hguide.experiments.parity.infinity_model import InfinityModel
from hguide.experiments.parity.recording import Recording
from hguide.grids import Grid

__all__ = ["replay_tokenizer", "replay_training"]


@torch.no_grad()
def replay_tokenizer(recording: Recording, model: InfinityModel) -> None:
    """Encode a recorded image and decode it again.

    Where the tokenizer's weights are not there, the recorded latent map is quantized.

    Args:
        recording: `image_in` in [-1, 1], `enc_h`, and any of the quantities of the golden files.
        model: its networks.
    """
    recording.leave("image_in", INPUT)
    grids = _grids(recording)
    if model.has_pictures:
        latent = model.tokenizer.latent(recording["image_in"])
        recording.compare("enc_h", latent)
    else:
        latent = recording["enc_h"]
        recording.leave("enc_h", INPUT)
    scales = quantize(latent, grids)
    _compare_scales(recording, scales, grids)
    if model.has_pictures:
        recording.compare("recon", model.tokenizer.decode_latent(scales.sums[-1]))
    recording.leave("recon", NO_PICTURES)
    inputs = training_inputs(latent, grids, patchify=model.patchify)
    _compare_training(recording, "clean", inputs, grids, model.patchify)


@torch.no_grad()
def replay_training(recording: Recording, model: InfinityModel) -> None:
    """Inputs, targets and logits of training, without errors in the bits and with the recorded ones.

    Args:
        recording: `clean_*` and `noisy_*` of the golden files.
        model: its networks; the latent map is that of the recorded encoding.

    Raises:
        ConfigError: the encoding is not beside it.
    """
    encoded = model.folder / f"vae_roundtrip_{model.name}.safetensors"
    pictures = _encoding(encoded)
    grids = _grids(Recording(encoded.stem, pictures))
    transformer, texts = model.transformer(), [each.embedding for each in embeddings(recording)]

    def fed(k: int, bits: Tensor) -> Tensor:
        name = f"s{k}.noisy_input_bits"
        if name not in recording:
            return bits
        recording.leave(name, INPUT)
        return recording[name].squeeze(1).long()

    schedule = model.schedule(tuple((h // 2, w // 2) for h, w in grids) if model.patchify else tuple(grids))
    for kind, flip in (("clean", None), ("noisy", fed)):
        found = training_inputs(pictures["enc_h"], grids, patchify=model.patchify, flip=flip)
        _compare_training(recording, kind, found, grids, model.patchify)
        recording.compare(f"{kind}_logits", transformer(texts, found.inputs, schedule))


def _compare_scales(recording: Recording, scales: MultiScaleBits, grids: Sequence[Grid]) -> None:
    """Bits, their sum, and the inputs that the official tokenizer returns, resized by area and used by nothing."""
    for k, bits in enumerate(scales.bits):
        recording.compare(f"s{k}.bits", bits.unsqueeze(1))
        if k:
            resized = F.interpolate(scales.sums[k - 1], size=grids[k], mode="area")
            recording.compare(f"s{k}.var_input_area", resized.unsqueeze(2))
    recording.compare("quant_z", scales.sums[-1])
    if "summed_from_bits" in recording:
        recorded = [recording[f"s{k}.bits"].squeeze(1).long() for k in range(len(grids))]
        total = torch.stack([enlarge(codes_of(bits), grids[-1]) for bits in recorded]).sum(0)
        recording.compare("summed_from_bits", total.unsqueeze(2))


def _compare_training(
    recording: Recording, kind: str, found: TrainingInputs, grids: Sequence[Grid], patchify: bool
) -> None:
    recording.compare(f"{kind}_x_BLC_wo_prefix", found.inputs)
    lengths = [height * width // (4 if patchify else 1) for height, width in grids]
    for k, targets in enumerate(found.targets.split(lengths, dim=1)):
        recording.compare(f"s{k}.{kind}_target_bits{'_patchified' * patchify}", targets)


def _grids(recording: Recording) -> list[Grid]:
    """The grids of an encoding, on which its bits lie."""
    found = {int(m[1]): name for name in recording.tensors if (m := re.fullmatch(r"s(\d+)\.bits", name))}
    if not found or sorted(found) != list(range(len(found))):
        raise ConfigError(f"{recording.case}: its bits do not tell a schedule.")
    shapes = [recording[found[k]].shape for k in range(len(found))]
    return [(shape[2], shape[3]) for shape in shapes]


def _encoding(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(f"{path} is not there, which holds the encoded pictures.")
    return read_state_dict(path)

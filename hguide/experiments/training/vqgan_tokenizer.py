"""Training of the tokenizer of the bundled VQ-Diffusion: one map of codes, as taming's VQModel (arXiv 2012.09841)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hguide.backends.checkpoints import load_into, read_metadata, read_state_dict
from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.vq_diffusion.descriptions import described_tokenizer
from hguide.backends.vq_diffusion.tokenizer import VQGAN, TokenizerConfig
from hguide.errors import CheckpointError
from hguide.experiments.training.data import random_crops, to_unit
from hguide.experiments.training.parts import weights_file
from hguide.experiments.training.reconstruction import ReconstructionConfig, ReconstructionTraining, train_tokenizer

__all__ = [
    "VQGANTraining",
    "VQGANTrainingConfig",
    "codes_of",
    "load_vqgan",
    "reconstruct_from_codes",
    "run",
    "take_weights",
]

FAMILY = "vqgan-tokenizer"
REBUILT_AT_ONCE = 60
IN_USE = 0.05
CANDIDATES = 4
"""Latent vectors of which one becomes a code at the start."""


@dataclass(frozen=True, kw_only=True)
class VQGANTrainingConfig(ReconstructionConfig):
    """Options of the tokenizer's training; there is one map of codes, so `patch_nums` has no effect.

    `init` takes a tokenizer or bundle of this family, or one of VAR ("landuse-var"): its encoder and decoder.

    Attributes:
        vocabulary: number of codes.
        code_channels: channels of a code.
        restart_steps: a code unused for about so many steps is set to a latent vector of the current batch.
    """

    vocabulary: int = 1024
    code_channels: int = 16
    restart_steps: int = 100

    def network(self) -> TokenizerConfig:
        """Shape of the tokenizer."""
        autoencoder = AutoencoderConfig(
            self.channels, tuple(self.multipliers), self.blocks, self.latent_channels, self.groups
        )
        return TokenizerConfig(
            autoencoder, vocabulary=self.vocabulary, code_channels=self.code_channels, codes=self.vocabulary
        )


class VQGANTraining(ReconstructionTraining):
    """Reconstruction + perceptual + codebook + commitment loss through a straight-through estimate; no adversary."""

    config: VQGANTrainingConfig
    network: VQGAN
    average: VQGAN

    def __init__(self, config: VQGANTrainingConfig) -> None:
        super().__init__(config)
        torch.manual_seed(config.seed)
        network = VQGAN(config.network())
        if not config.init or not take_weights(network, config.init):
            self._start_codes(network)
        self.start(network)
        self.register_buffer("usage", torch.ones(config.vocabulary))
        self.usage: Tensor

    @torch.no_grad()
    def _start_codes(self, network: VQGAN) -> None:
        """Set the codes to latent vectors of crops, so that all are in use from the first step."""
        config = self.config
        positions = (config.crop // config.network().autoencoder.stride) ** 2
        count = -(-CANDIDATES * config.vocabulary // positions)
        crops, _, _ = random_crops(self.train_scenes, count, config.crop, config.seed, 0)
        pool = latent_vectors(network.latent(to_unit(crops) * 2 - 1))
        network.codebook.weight.copy_(pool[torch.randperm(len(pool))[: config.vocabulary]])

    def is_inner(self, name: str) -> bool:
        """All but the codebook and the layers at the pixels."""
        return not name.startswith(("codebook", "encoder.conv_in", "decoder.conv_out"))

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch of crops."""
        target, network = self.batch(step), self.network
        latent = network.latent(target * 2 - 1).float()
        codes = nearest_codes(network, latent)
        quantised = network.codebook(codes).movedim(-1, 1)
        straight = latent + (quantised - latent).detach()
        decoded = network.decoder(network.post_quant_conv(straight)).float() * 0.5 + 0.5
        pull = F.mse_loss(quantised, latent.detach())
        commitment = F.mse_loss(latent, quantised.detach())
        loss, logged = self.total_loss(decoded, target, (pull, self.config.commitment * commitment))
        self._follow_usage(latent.detach(), codes, step)
        return loss, logged | {"codes": pull.detach(), "codes_used": (self.usage > IN_USE).float().mean()}

    @torch.no_grad()
    def _follow_usage(self, latent: Float[Tensor, "b c h w"], codes: Int[Tensor, "b h w"], step: int) -> None:
        """Average the use of each code, and restart codes out of use from latent vectors of this batch."""
        counts = torch.bincount(codes.flatten(), minlength=len(self.usage)).float()
        decay = 1 - 1 / self.config.restart_steps
        self.usage.mul_(decay).add_(counts, alpha=1 - decay)
        # No restarts at the end: the averaged weights need settled codes.
        if step % 20 or step < 20 or self.progress > 0.8:
            return
        dead = (self.usage < IN_USE).nonzero().flatten()
        pool = latent_vectors(latent)
        self.network.codebook.weight[dead] = pool[torch.randint(len(pool), (len(dead),), device=pool.device)]
        self.usage[dead] = 1.0

    def rebuild(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Images in [0, 1] through the codes of the averaged weights and back."""
        return reconstruct_from_codes(self.average, images)


def latent_vectors(latent: Float[Tensor, "b c h w"]) -> Float[Tensor, "n c"]:
    """One row for each position."""
    return latent.movedim(1, -1).flatten(0, 2)


def nearest_codes(network: VQGAN, latent: Float[Tensor, "b c h w"]) -> Int[Tensor, "b h w"]:
    """The nearest code of each position, in float32."""
    with torch.autocast(latent.device.type, enabled=False):
        return network.nearest(latent)


@torch.no_grad()
def codes_of(network: VQGAN, images: Float[Tensor, "b 3 height width"]) -> Int[Tensor, "b h w"]:
    """Codes of images in [0, 1]; under autocast the encoder runs in half precision, the search never does."""
    latent = network.latent((images * 2 - 1).contiguous(memory_format=torch.channels_last))
    return nearest_codes(network, latent.float())


@torch.no_grad()
def reconstruct_from_codes(network: VQGAN, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Images in [0, 1] through codes and back."""
    parts = images.split(REBUILT_AT_ONCE)
    return torch.cat([network.decode(codes_of(network, part)).float() * 0.5 + 0.5 for part in parts])


@torch.no_grad()
def take_weights(network: VQGAN, given: str) -> bool:
    """Start from trained weights: all of a tokenizer of this family; encoder and decoder of one of VAR.

    VAR has 3x3 convolutions around the quantizer, where a VQGAN has 1x1: these start as the sums of the kernels, which
    do the same to a map without detail.

    Args:
        network: to set.
        given: file of a tokenizer or bundle, or a bundled name.

    Returns:
        Whether the codebook was taken too.

    Raises:
        CheckpointError: weights that do not fit.
    """
    state = read_state_dict(weights_file(given))
    prefix = "tokenizer." if any(key.startswith("tokenizer.") for key in state) else ""
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if "codebook.weight" in state:
        load_into(network, state)
        return True
    for name in ("encoder", "decoder"):
        part = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        load_into(network.get_submodule(name), part)
    for name in ("quant_conv", "post_quant_conv"):
        kernels, convolution = state[f"{name}.weight"].float(), cast("nn.Conv2d", network.get_submodule(name))
        if kernels.shape[:2] == convolution.weight.shape[:2]:
            load_into(convolution, {"weight": kernels.sum((2, 3), keepdim=True), "bias": state[f"{name}.bias"]})
    return False


def run(config: VQGANTrainingConfig) -> Path:
    """Train (or resume) the tokenizer and write `tokenizer.safetensors` (float32, averaged weights).

    Returns:
        Path of the weights.
    """
    return train_tokenizer(VQGANTraining(config), {"family": FAMILY, "tokenizer": asdict(config.network())})


def load_vqgan(path: str | Path) -> tuple[VQGAN, dict]:
    """The tokenizer that `run` wrote, or that of a bundled VQ-Diffusion model, and the file's metadata.

    Raises:
        CheckpointError: the file holds neither.
    """
    file = weights_file(path)
    try:
        metadata = json.loads(read_metadata(file)["hguide"])
        family = metadata["family"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{file}: carries no description of a tokenizer.") from error
    if family not in (FAMILY, "vq_diffusion"):
        raise CheckpointError(
            f"{file}: describes {family!r}, not the tokenizer of a VQ-Diffusion model: give the file that "
            "`hguide train vqgan-tokenizer` wrote."
        )
    network = VQGAN(described_tokenizer(metadata))
    take_weights(network, str(path))
    return network.eval().requires_grad_(False), metadata

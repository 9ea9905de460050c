"""Training of the multi-scale tokenizer (VQVAE) of the bundled VAR model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.backends.var.tokenizer import TokenizerConfig, VARTokenizer
from hguide.errors import ConfigError
from hguide.experiments.training.reconstruction import (
    ReconstructionConfig,
    ReconstructionTraining,
    load_tokenizer_weights,
    train_tokenizer,
)

__all__ = ["TokenizerTraining", "TokenizerTrainingConfig", "load_tokenizer", "quantise", "reconstruct", "run"]


@dataclass(frozen=True, kw_only=True)
class TokenizerTrainingConfig(ReconstructionConfig):
    """Options of the tokenizer's training.

    Attributes:
        vocabulary: number of codes.
        restart_steps: a code unused for about so many steps is set to a latent vector of the current batch.
        decoder_only: leave the encoder and the codes as they are, so that generators of the same tokens stay valid.
    """

    vocabulary: int = 1024
    restart_steps: int = 100
    decoder_only: bool = False

    def network(self) -> TokenizerConfig:
        """Shape of the tokenizer."""
        autoencoder = AutoencoderConfig(
            self.channels,
            tuple(self.multipliers),
            blocks=self.blocks,
            latent_channels=self.latent_channels,
            groups=self.groups,
        )
        return TokenizerConfig(autoencoder, vocabulary=self.vocabulary, patch_nums=tuple(self.patch_nums))


class TokenizerTraining(ReconstructionTraining):
    """Reconstruction + perceptual + commitment loss through a straight-through estimate over all scales."""

    config: TokenizerTrainingConfig
    network: VARTokenizer
    average: VARTokenizer

    def __init__(self, config: TokenizerTrainingConfig) -> None:
        super().__init__(config)
        torch.manual_seed(config.seed)
        network = VARTokenizer(config.network())
        torch.nn.init.normal_(network.quantize.embedding.weight, std=0.5)
        if config.init:
            load_tokenizer_weights(network, config.init)
        if config.decoder_only:
            if not config.init:
                raise ConfigError("decoder_only trains the decoder of a tokenizer that is there: give it with init.")
            network.requires_grad_(False)
            network.post_quant_conv.requires_grad_(True)
            network.decoder.requires_grad_(True)
        self.start(network)
        # Codes that come from elsewhere count as used until the crops say otherwise.
        self.register_buffer("usage", torch.full((config.vocabulary,), 1.0 if config.init else 0.0))
        self.usage: Tensor

    def is_inner(self, name: str) -> bool:
        """All but the codebook and the layers at the pixels."""
        return not name.startswith(("quantize.embedding", "encoder.conv_in", "decoder.conv_out"))

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch of crops."""
        target = self.batch(step)
        if self.config.decoder_only:
            return self._decoder_loss(target)
        f = self.network.latent(target * 2 - 1).float()
        tokens, latents = quantise(self.network, f)
        straight = f + (latents[-1] - f).detach()
        decoded = self.network.decoder(self.network.post_quant_conv(straight)).float() * 0.5 + 0.5
        codes = torch.stack([F.mse_loss(latent, f.detach()) for latent in latents]).mean()
        commitment = torch.stack([F.mse_loss(f, latent.detach()) for latent in latents]).mean()
        loss, logged = self.total_loss(decoded, target, (codes, self.config.commitment * commitment))
        self._follow_usage(f.detach(), tokens, [latent.detach() for latent in latents], step)
        return loss, logged | {"codes": codes.detach(), "codes_used": (self.usage > 0.05).float().mean()}

    def _decoder_loss(self, target: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the pictures alone."""
        with torch.no_grad():
            latent = quantise(self.network, self.network.latent(target * 2 - 1).float())[1][-1]
        decoded = self.network.decoder(self.network.post_quant_conv(latent)).float() * 0.5 + 0.5
        return self.total_loss(decoded, target, ())

    @torch.no_grad()
    def _follow_usage(self, f: Tensor, tokens: list[Tensor], latents: list[Tensor], step: int) -> None:
        """Average the use of each code, and restart codes out of use from residuals of this batch."""
        counts = torch.bincount(torch.cat([each.flatten() for each in tokens]), minlength=len(self.usage)).float()
        decay = 1 - 1 / self.config.restart_steps
        self.usage.mul_(decay).add_(counts, alpha=1 - decay)
        # No restarts at the end: the averaged weights need settled codes.
        if step % 20 or step < 20 or self.progress > 0.8:
            return
        dead = (self.usage < 0.05).nonzero().flatten()
        if len(dead) == 0:
            return
        pool = residual_vectors(self.network, f, latents)
        chosen = pool[torch.randint(len(pool), (len(dead),), device=pool.device)]
        self.network.quantize.embedding.weight[dead] = chosen
        self.usage[dead] = 1.0

    def rebuild(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Images in [0, 1] through the tokens of the averaged weights and back."""
        return reconstruct(self.average, images)


def quantise(network: VARTokenizer, f: Float[Tensor, "b c h w"]) -> tuple[list[Tensor], list[Tensor]]:
    """Tokens and accumulated latents of each scale, in float32."""
    with torch.autocast(f.device.type, enabled=False):
        return network.quantize.encode_with_latents(f, network.config.grids)


def residual_vectors(network: VARTokenizer, f: Tensor, latents: list[Tensor]) -> Float[Tensor, "n c"]:
    """The latent vectors that each scale had to name: area-reduced residuals of all scales, one row each."""
    before = [torch.zeros_like(f), *latents[:-1]]
    maps = [network.quantize.next_map(f - past, grid) for past, grid in zip(before, network.config.grids, strict=True)]
    return torch.cat([each.flatten(2).transpose(1, 2).reshape(-1, f.shape[1]) for each in maps])


@torch.no_grad()
def reconstruct(network: VARTokenizer, images: Float[Tensor, "b 3 h w"], batch: int = 60) -> Float[Tensor, "b 3 h w"]:
    """Images in [0, 1] through tokens and back."""
    parts = []
    for part in images.split(batch):
        f = network.latent(part * 2 - 1).float()
        parts.append(network.decode_latent(quantise(network, f)[1][-1]).float() * 0.5 + 0.5)
    return torch.cat(parts)


def run(config: TokenizerTrainingConfig) -> Path:
    """Train (or resume) the tokenizer and write `tokenizer.safetensors` (float32, averaged weights).

    Returns:
        Path of the weights.
    """
    module = TokenizerTraining(config)
    about: dict[str, Any] = {"family": "var-tokenizer", "tokenizer": asdict(config.network())}
    if config.decoder_only:
        about["same_tokens_as"] = tokenizer_hash(module.network)
    return train_tokenizer(module, about)


def load_tokenizer(path: str | Path) -> tuple[VARTokenizer, dict]:
    """The tokenizer that `run` wrote, and its metadata."""
    from safetensors import safe_open

    with safe_open(str(path), "pt") as handle:
        metadata = json.loads(handle.metadata()["hguide"])
    shape = metadata["tokenizer"]
    auto: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in shape["autoencoder"].items()}
    rest: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in shape.items() if k != "autoencoder"}
    network = VARTokenizer(TokenizerConfig(AutoencoderConfig(**auto), **rest))
    load_tokenizer_weights(network, str(path))
    return network.eval().requires_grad_(False), metadata

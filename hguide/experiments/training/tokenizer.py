"""Training of the multi-scale tokenizer (VQVAE) of the bundled VAR model."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.var.tokenizer import TokenizerConfig, VARTokenizer
from hguide.experiments.training.data import crop_centres, random_crops, to_unit
from hguide.experiments.training.fit import TrainingModule, fit, training_metadata
from hguide.experiments.training.perceptual import PerceptualDistance
from hguide.experiments.training.run_config import RunConfig

__all__ = ["TokenizerTraining", "TokenizerTrainingConfig", "run"]


@dataclass(frozen=True, kw_only=True)
class TokenizerTrainingConfig(RunConfig):
    """Options of the tokenizer's training.

    Attributes:
        squeezenet: safetensors of SqueezeNet 1.1 (torchvision's keys) for the perceptual loss; None trains without.
        channels: width at full resolution.
        multipliers: width of each level as a multiple of `channels`.
        blocks: residual blocks per encoder level.
        groups: groups of the group norms; few channels a group erase the mean colour.
        latent_channels: length of a code.
        vocabulary: number of codes.
        patch_nums: side of each scale's token map.
        perceptual_weight: weight of the perceptual distance.
        perceptual_zoom: enlargement before it.
        squared_weight: weight of the squared error beside the absolute error.
        colour_weight: weight of the error of the opponent colours R - G and B - G at a quarter of the resolution; they
            vary little in aerial pictures and would be learnt last.
        commitment: weight of the pull of the latent towards the codes.
        restart_steps: a code unused for about so many steps is set to a latent vector of the current batch.
    """

    batch_size: int = 12
    learning_rate: float = 8e-4
    weight_decay: float = 1e-4
    squeezenet: str | None = None
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 1
    groups: int = 8
    latent_channels: int = 16
    vocabulary: int = 1024
    patch_nums: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8)
    perceptual_weight: float = 1.0
    perceptual_zoom: float = 1.0
    squared_weight: float = 1.0
    colour_weight: float = 2.0
    commitment: float = 0.25
    restart_steps: int = 100

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


class TokenizerTraining(TrainingModule):
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
        self.set_network(network)
        self.distance = (
            PerceptualDistance(config.squeezenet, zoom=config.perceptual_zoom) if config.squeezenet else None
        )
        self.register_buffer("usage", torch.zeros(config.vocabulary))
        self.usage: Tensor

    def is_inner(self, name: str) -> bool:
        """All but the codebook and the layers at the pixels."""
        return not name.startswith(("quantize.embedding", "encoder.conv_in", "decoder.conv_out"))

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch of crops."""
        config = self.config
        crops, _, _ = random_crops(self.train_scenes, config.batch_size, config.crop, config.seed, step)
        target = to_unit(crops).to(self.device).contiguous(memory_format=torch.channels_last)
        f = self.network.latent(target * 2 - 1).float()
        tokens, latents = quantise(self.network, f)
        straight = f + (latents[-1] - f).detach()
        # Not clamped: outside [-1, 1] a clamp would stop the gradient.
        decoded = self.network.decoder(self.network.post_quant_conv(straight)).float() * 0.5 + 0.5
        absolute, squared = (decoded - target).abs().mean(), (decoded - target).square().mean()
        codes = torch.stack([F.mse_loss(latent, f.detach()) for latent in latents]).mean()
        commitment = torch.stack([F.mse_loss(f, latent.detach()) for latent in latents]).mean()
        colour = colour_error(decoded, target)
        loss = absolute + config.squared_weight * squared + config.colour_weight * colour
        loss = loss + codes + config.commitment * commitment
        logged = {"absolute": absolute, "psnr_train": -10 * squared.log10(), "colour": colour, "codes": codes}
        if self.distance is not None:
            perceptual = self.distance(decoded, target).mean()
            loss = loss + config.perceptual_weight * perceptual
            logged["perceptual"] = perceptual
        self._follow_usage(f.detach(), tokens, [latent.detach() for latent in latents], step)
        logged["codes_used"] = (self.usage > 0.05).float().mean()
        return loss, {name: value.detach() for name, value in logged.items()}

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

    def evaluate(self) -> dict[str, float]:
        """PSNR, perceptual distance and share of codes used, on the centre crops of the test scenes."""
        images = to_unit(crop_centres(self.test_scenes, self.config.crop))
        return reconstruction_measures(self.average, images, self.distance)

    def pictures(self) -> Float[Tensor, "rows columns 3 h w"]:
        """Held-out crops over their reconstructions, one column per class."""
        each = len(self.test_scenes.labels) // len(self.test_scenes.classes)
        images = to_unit(crop_centres(self.test_scenes, self.config.crop))
        chosen = torch.cat([images[::each], images[1::each]]).to(self.device)
        rebuilt = reconstruct(self.average, chosen)
        rows = len(self.test_scenes.classes)
        return torch.stack([chosen[:rows], rebuilt[:rows], chosen[rows:], rebuilt[rows:]])


def colour_error(x: Float[Tensor, "b 3 h w"], y: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
    """Mean absolute error of R - G and B - G, averaged over 4x4 pixels."""
    error = F.avg_pool2d(x - y, 4)
    return (error[:, ::2] - error[:, 1:2]).abs().mean()


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


@torch.no_grad()
def reconstruction_measures(
    network: VARTokenizer, images: Float[Tensor, "b 3 h w"], distance: PerceptualDistance | None
) -> dict[str, float]:
    """PSNR (mean over images) and perceptual distance of reconstructions, of images in [0, 1]."""
    device = next(network.parameters()).device
    images = images.to(device)
    rebuilt = reconstruct(network, images)
    errors = (rebuilt - images).square().mean((1, 2, 3))
    measures = {"test_psnr": (-10 * errors.log10()).mean().item()}
    if distance is not None:
        pairs = zip(rebuilt.split(60), images.split(60), strict=True)
        measures["test_perceptual"] = torch.cat([distance(x, y) for x, y in pairs]).mean().item()
    return measures


def load_tokenizer_weights(network: VARTokenizer, path: str) -> None:
    """Take the tokenizer's weights from a bundle or from a file of `run`."""
    from safetensors.torch import load_file

    state = load_file(path)
    prefix = "tokenizer." if any(key.startswith("tokenizer.") for key in state) else ""
    network.load_state_dict(
        {key.removeprefix(prefix): value.float() for key, value in state.items() if key.startswith(prefix)}
    )


def run(config: TokenizerTrainingConfig) -> Path:
    """Train (or resume) the tokenizer and write `tokenizer.safetensors` (float32, averaged weights).

    Returns:
        Path of the weights.
    """
    from safetensors.torch import save_file

    module = TokenizerTraining(config)
    fit(module)
    measured = {name: value for name, value in module.evaluate().items() if math.isfinite(value)}
    metadata = {
        "family": "var-tokenizer",
        "tokenizer": asdict(config.network()),
        "classes": list(module.train_scenes.classes),
        "training": training_metadata(module) | measured,
    }
    path = Path(config.out) / "tokenizer.safetensors"
    state = {key: value.float().contiguous().cpu() for key, value in module.average.state_dict().items()}
    save_file(state, str(path), {"hguide": json.dumps(metadata)})
    return path


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

"""What the trainings of all tokenizers share: the losses between pictures and their reconstructions, and measures."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hguide.experiments.training.data import crop_centres, random_crops, to_unit
from hguide.experiments.training.fit import TrainingModule, fit, training_metadata
from hguide.experiments.training.parts import weights_file
from hguide.experiments.training.perceptual import PerceptualDistance
from hguide.experiments.training.run_config import RunConfig

__all__ = [
    "ReconstructionConfig",
    "ReconstructionTraining",
    "colour_error",
    "load_tokenizer_weights",
    "reconstruction_measures",
    "train_tokenizer",
]


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig(RunConfig):
    """Options of every tokenizer's training.

    Attributes:
        squeezenet: safetensors of SqueezeNet 1.1 (torchvision's keys) for the perceptual loss; None trains without.
        channels: width at full resolution.
        multipliers: width of each level as a multiple of `channels`.
        blocks: residual blocks per encoder level.
        groups: groups of the group norms; few channels a group erase the mean colour.
        latent_channels: channels of the latent map.
        patch_nums: side of each scale's token map.
        perceptual_weight: weight of the perceptual distance.
        perceptual_zoom: enlargement before it.
        texture_weight: weight of the difference of texture (`PerceptualDistance.with_texture`).
        squared_weight: weight of the squared error beside the absolute error.
        colour_weight: weight of the error of the opponent colours R - G and B - G at a quarter of the resolution; they
            vary little in aerial pictures and would be learnt last.
        commitment: weight of the pull of the latent towards what its tokens say.
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
    patch_nums: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8)
    perceptual_weight: float = 1.0
    perceptual_zoom: float = 1.0
    texture_weight: float = 0.0
    squared_weight: float = 1.0
    colour_weight: float = 2.0
    commitment: float = 0.25


class ReconstructionTraining(TrainingModule):
    """A training that rebuilds pictures. Subclasses make the network and call `start`; then `loss` and `rebuild`."""

    config: ReconstructionConfig

    def start(self, network: nn.Module) -> None:
        """Take the tokenizer to train."""
        config = self.config
        self.set_network(network)
        self.distance = (
            PerceptualDistance(config.squeezenet, zoom=config.perceptual_zoom) if config.squeezenet else None
        )

    @abstractmethod
    def rebuild(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Images in [0, 1] through the tokens of the averaged weights and back."""

    def batch(self, step: int) -> Float[Tensor, "b 3 h w"]:
        """The crops of a step, in [0, 1]."""
        config = self.config
        crops, _, _ = random_crops(self.train_scenes, config.batch_size, config.crop, config.seed, step)
        return to_unit(crops).to(self.device).contiguous(memory_format=torch.channels_last)

    def total_loss(
        self, decoded: Float[Tensor, "b 3 h w"], target: Float[Tensor, "b 3 h w"], terms: Sequence[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """|x - y| + w_s (x - y)^2 + w_c colour(x, y) + w_p perceptual(x, y) + w_t texture(x, y) + terms; parts by name.

        Args:
            decoded: not clamped; outside [0, 1] a clamp would stop the gradient.
            target: the crops.
            terms: what the tokens add, weighted.
        """
        config = self.config
        absolute, squared = (decoded - target).abs().mean(), (decoded - target).square().mean()
        colour = colour_error(decoded, target)
        loss = absolute + config.squared_weight * squared + config.colour_weight * colour
        for term in terms:
            loss = loss + term
        logged = {"absolute": absolute, "psnr_train": -10 * squared.log10(), "colour": colour}
        if self.distance is not None:
            perceptual, texture = (part.mean() for part in self.distance.with_texture(decoded, target))
            loss = loss + config.perceptual_weight * perceptual + config.texture_weight * texture
            logged |= {"perceptual": perceptual, "texture": texture}
        return loss, {name: value.detach() for name, value in logged.items()}

    def evaluate(self) -> dict[str, float]:
        """PSNR and perceptual distance on the centre crops of the test scenes."""
        images = to_unit(crop_centres(self.test_scenes, self.config.crop)).to(self.device)
        return reconstruction_measures(self.rebuild(images), images, self.distance)

    def pictures(self) -> Float[Tensor, "rows columns 3 h w"]:
        """Held-out crops over their reconstructions, one column per class."""
        each = len(self.test_scenes.labels) // len(self.test_scenes.classes)
        images = to_unit(crop_centres(self.test_scenes, self.config.crop))
        chosen = torch.cat([images[::each], images[1::each]]).to(self.device)
        rebuilt = self.rebuild(chosen)
        rows = len(self.test_scenes.classes)
        return torch.stack([chosen[:rows], rebuilt[:rows], chosen[rows:], rebuilt[rows:]])


def colour_error(x: Float[Tensor, "b 3 h w"], y: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
    """Mean absolute error of R - G and B - G, averaged over 4x4 pixels."""
    error = F.avg_pool2d(x - y, 4)
    return (error[:, ::2] - error[:, 1:2]).abs().mean()


@torch.no_grad()
def reconstruction_measures(
    rebuilt: Float[Tensor, "b 3 h w"], images: Float[Tensor, "b 3 h w"], distance: PerceptualDistance | None
) -> dict[str, float]:
    """PSNR (mean over images) and perceptual distance of reconstructions, of images in [0, 1]."""
    errors = (rebuilt - images).square().mean((1, 2, 3))
    measures = {"test_psnr": (-10 * errors.log10()).mean().item()}
    if distance is not None:
        pairs = zip(rebuilt.split(60), images.split(60), strict=True)
        measures["test_perceptual"] = torch.cat([distance(x, y) for x, y in pairs]).mean().item()
    return measures


def load_tokenizer_weights(network: nn.Module, path: str) -> None:
    """Take a tokenizer's weights from a bundled model by name, a bundle, or a file of its training."""
    from safetensors.torch import load_file

    state = load_file(weights_file(path))
    prefix = "tokenizer." if any(key.startswith("tokenizer.") for key in state) else ""
    network.load_state_dict(
        {key.removeprefix(prefix): value.float() for key, value in state.items() if key.startswith(prefix)}
    )


def train_tokenizer(module: ReconstructionTraining, about: Mapping[str, Any]) -> Path:
    """Train (or resume) a tokenizer and write `tokenizer.safetensors` (float32, averaged weights).

    Args:
        module: the training.
        about: what the file says of itself besides classes and training: family and shape.

    Returns:
        Path of the weights.
    """
    from safetensors.torch import save_file

    fit(module)
    measured = {name: value for name, value in module.evaluate().items() if math.isfinite(value)}
    metadata = {
        **about,
        "classes": list(module.train_scenes.classes),
        "training": training_metadata(module) | measured,
    }
    path = Path(module.config.out) / "tokenizer.safetensors"
    kept = module.average.state_dict()
    state = {key: value.float() if value.is_floating_point() else value for key, value in kept.items()}
    save_file(
        {key: value.contiguous().cpu() for key, value in state.items()}, str(path), {"hguide": json.dumps(metadata)}
    )
    return path

"""Training of the feature network: a classifier of land-use crops."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hguide.experiments.features import FeatureConfig, FeatureNetwork, load_features, save_features
from hguide.experiments.training.data import Scenes, crop_centres, random_crops, to_unit
from hguide.experiments.training.fit import TrainingModule, fit, training_metadata
from hguide.experiments.training.run_config import RunConfig

__all__ = ["FeaturesConfig", "FeaturesTraining", "run"]

TEST_SEED = 20_260


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig(RunConfig):
    """Options of the feature network's training.

    Attributes:
        features: size of the penultimate layer, at most 64.
        widths: channels at 1/2, 1/4, 1/8 of the resolution.
        blocks: residual blocks at each.
        label_smoothing: mass given to the other classes.
        mixup: Beta parameter of the mixing of pairs; 0 for none.
        warp: share of crops that are turned by any angle and zoomed by up to 1.3.
    """

    batch_size: int = 128
    steps: int = 6_000
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    features: int = 48
    widths: tuple[int, ...] = (32, 64, 96)
    blocks: tuple[int, ...] = (1, 2, 1)
    label_smoothing: float = 0.1
    mixup: float = 0.2
    warp: float = 0.5


class FeaturesTraining(TrainingModule):
    """Cross entropy on warped, recoloured, mixed crops."""

    config: FeaturesConfig

    def __init__(self, config: FeaturesConfig) -> None:
        super().__init__(config)
        classes = len(self.train_scenes.classes)
        torch.manual_seed(config.seed)
        self.set_network(FeatureNetwork(FeatureConfig(classes, config.features, config.widths, config.blocks)))
        if config.init:
            self.network.load_state_dict(load_features(config.init)[0].state_dict())

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy of one batch, labels smoothed and mixed."""
        config = self.config
        margin = min(96, config.crop + config.crop // 2)
        crops, labels, _ = random_crops(self.train_scenes, config.batch_size, margin, config.seed, step)
        images = recolour(random_windows(to_unit(crops).to(self.device), config.crop, config.warp))
        target = F.one_hot(labels.to(self.device), len(self.train_scenes.classes)).float()
        if config.mixup > 0:
            share = torch.distributions.Beta(config.mixup, config.mixup).sample().to(self.device)
            order = torch.randperm(len(images), device=self.device)
            images = share * images + (1 - share) * images[order]
            target = share * target + (1 - share) * target[order]
        scores = self.network(images.contiguous(memory_format=torch.channels_last)).float()
        loss = F.cross_entropy(scores, target, label_smoothing=config.label_smoothing)
        return loss, {"accuracy": (scores.argmax(1) == target.argmax(1)).float().mean()}

    def evaluate(self) -> dict[str, float]:
        """Accuracy on the centre crop and on four random crops of each test scene, one crop at a time."""
        return held_out_accuracy(self.average, self.test_scenes, self.config.crop)


def random_windows(images: Float[Tensor, "b 3 m m"], size: int, warp: float) -> Float[Tensor, "b 3 size size"]:
    """Windows of larger crops: a share `warp` at any angle and zoomed by 1/1.3 to 1.3, the others cut as they are.

    Args:
        images: larger crops.
        size: side of the windows.
        warp: share of resampled windows.
    """
    b, _, m, _ = images.shape
    device = images.device
    top, left = torch.randint(0, m - size + 1, (2, b, 1), device=device)
    span = torch.arange(size, device=device)
    each = torch.arange(b, device=device)[:, None, None, None]
    plane = torch.arange(3, device=device)[None, :, None, None]
    cut = images[each, plane, (top + span)[:, None, :, None], (left + span)[:, None, None, :]]
    angle = torch.rand(b, device=device) * 2 * torch.pi
    zoom = torch.exp((torch.rand(b, device=device) * 2 - 1) * 0.26) * size / m
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    free = (1 - size / m) * 0.5
    shift = (torch.rand(2, b, device=device) * 2 - 1) * free
    affine = torch.stack([cosine, -sine, shift[0], sine, cosine, shift[1]], 1).view(b, 2, 3)
    lattice = F.affine_grid(affine, [b, 3, size, size], align_corners=False)
    warped = F.grid_sample(images, lattice, padding_mode="reflection", align_corners=False)
    return torch.where(torch.rand(b, 1, 1, 1, device=device) < warp, warped, cut)


def recolour(images: Float[Tensor, "b 3 h w"], strength: float = 0.15) -> Float[Tensor, "b 3 h w"]:
    """Random contrast and per-channel brightness, one draw per image."""
    b = images.shape[0]
    contrast = 1 + strength * torch.randn(b, 1, 1, 1, device=images.device)
    shift = 0.3 * strength * torch.randn(b, 3, 1, 1, device=images.device)
    shift = shift + 0.5 * strength * torch.randn(b, 1, 1, 1, device=images.device)
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean + shift).clamp(0, 1)


@torch.no_grad()
def held_out_accuracy(network: torch.nn.Module, scenes: Scenes, size: int) -> dict[str, float]:
    """Share of held-out crops whose class is named right: centre crops, and random crops four times as many."""
    device = next(network.parameters()).device
    draws, labels, _ = random_crops(scenes, 4 * len(scenes.labels), size, TEST_SEED, 0)
    random = torch.cat([network(to_unit(part).to(device)).argmax(1).cpu() for part in draws.split(210)])
    centre = torch.cat(
        [network(to_unit(part).to(device)).argmax(1).cpu() for part in crop_centres(scenes, size).split(210)]
    )
    return {
        "test_accuracy": (random == labels).float().mean().item(),
        "test_accuracy_centre": (centre == scenes.labels).float().mean().item(),
    }


def run(config: FeaturesConfig) -> Path:
    """Train (or resume) the feature network and write `features.safetensors`.

    Returns:
        Path of the weights.
    """
    module = FeaturesTraining(config)
    fit(module)
    path = Path(config.out) / "features.safetensors"
    network = module.average.cpu().eval()
    assert isinstance(network, FeatureNetwork)
    measured = held_out_accuracy(network, module.test_scenes, config.crop)
    training = training_metadata(module) | {k: round(v, 4) for k, v in measured.items()}
    save_features(network, {"classes": list(module.train_scenes.classes), "training": training}, path)
    return path

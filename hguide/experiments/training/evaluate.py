"""How good a bundled model is: reconstructions of held-out crops, and how a frozen classifier reads its pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hguide.backends.var.tokenizer import VARTokenizer
from hguide.errors import ConfigError
from hguide.experiments.training.data import Scenes, random_crops, to_unit
from hguide.experiments.training.perceptual import PerceptualDistance
from hguide.experiments.training.tokenizer import reconstruct

__all__ = ["class_accuracy", "evaluate_reconstructions", "evaluate_tokenizer", "images_from_folder"]

CROP_SEED = 20_260


@torch.no_grad()
def class_accuracy(classifier: nn.Module, images: Float[Tensor, "b 3 h w"], labels: Int[Tensor, " b"]) -> float:
    """Share of images in [0, 1] whose class the classifier names right."""
    device = next(classifier.parameters()).device
    found = torch.cat([classifier(part.to(device)).argmax(1).cpu() for part in images.split(210)])
    return (found == labels.cpu()).float().mean().item()


@torch.no_grad()
def evaluate_tokenizer(
    tokenizer: VARTokenizer,
    scenes: Scenes,
    classifier: nn.Module,
    distance: PerceptualDistance | None = None,
    crops_per_scene: int = 4,
) -> dict[str, float | None]:
    """Measures of held-out reconstructions through tokens; see `evaluate_reconstructions`."""
    size, device = tokenizer.config.image_size, next(tokenizer.parameters()).device
    rebuild = partial(reconstruct, tokenizer)
    return evaluate_reconstructions(rebuild, size, device, scenes, classifier, distance, crops_per_scene)


@torch.no_grad()
def evaluate_reconstructions(
    rebuild: Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, "b 3 h w"]],
    size: int,
    device: torch.device,
    scenes: Scenes,
    classifier: nn.Module,
    distance: PerceptualDistance | None = None,
    crops_per_scene: int = 4,
) -> dict[str, float | None]:
    """Measures of held-out reconstructions.

    Args:
        rebuild: images in [0, 1] on `device` to their reconstructions; what is measured.
        size: side of the crops.
        device: where `rebuild` computes.
        scenes: test scenes; crops of one scene are correlated, so the sample is nearer the scenes' number.
        classifier: frozen classifier.
        distance: perceptual distance, if its network is at hand.
        crops_per_scene: random crops, as many times the number of scenes.

    Returns:
        psnr (mean over crops, dB), perceptual, accuracy_originals, accuracy_reconstructions and their ratio
        (None where no original is recognised).
    """
    count = crops_per_scene * len(scenes.labels)
    crops, labels, _ = random_crops(scenes, count, size, CROP_SEED, 0)
    images = to_unit(crops).to(device)
    rebuilt = rebuild(images)
    errors = (rebuilt - images).square().mean((1, 2, 3))
    originals, copies = (class_accuracy(classifier, each, labels) for each in (images, rebuilt))
    measures: dict[str, float | None] = {
        "psnr": (-10 * errors.log10()).mean().item(),
        "accuracy_originals": originals,
        "accuracy_reconstructions": copies,
        "accuracy_ratio": copies / originals if originals else None,
        "crops": float(count),
    }
    if distance is not None:
        pairs = zip(rebuilt.split(60), images.split(60), strict=True)
        measures["perceptual"] = torch.cat([distance(x, y) for x, y in pairs]).mean().item()
    return measures


def images_from_folder(
    folder: str | Path, classes: tuple[str, ...]
) -> tuple[Float[Tensor, "b 3 h w"], Int[Tensor, " b"]]:
    """PNG pictures in one folder per class, as images in [0, 1] and labels.

    Raises:
        ConfigError: no picture is there, or the sizes differ.
    """
    from PIL import Image

    found = [
        (file, label) for label, name in enumerate(classes) for file in sorted((Path(folder) / name).glob("*.png"))
    ]
    arrays = []
    for file, _ in found:
        with Image.open(file) as picture:
            arrays.append(np.asarray(picture.convert("RGB")))
    if len({array.shape for array in arrays}) != 1:
        raise ConfigError(
            f"{folder}: expected PNG pictures of one size in folders named after classes "
            f"({', '.join(classes[:3])}, ...), found {len(arrays)} of {len({array.shape for array in arrays})} sizes."
        )
    stacked = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    return to_unit(stacked.contiguous()), torch.tensor([label for _, label in found])

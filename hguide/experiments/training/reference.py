"""The reference statistics that the package ships: features of crops of train and of test scenes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from hguide.errors import ConfigError
from hguide.experiments.extractors import (
    LanduseExtractor,
    Projection,
    SqueezeNetExtractor,
    file_hash,
    pooled_squeezenet,
)
from hguide.experiments.reference import Crops, save_reference
from hguide.experiments.training.data import Scenes, Split, load_scenes, symmetries
from hguide.experiments.training.perceptual import SqueezeNetFeatures
from hguide.provenance import versions

__all__ = ["ReferenceConfig", "run", "scene_crops"]

LARGEST_BYTES = 3_200_000
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """Options of the reference.

    Attributes:
        data: folder of the scenes.
        out: file to write, `NAME.safetensors`.
        squeezenet: safetensors of SqueezeNet 1.1 for the repeat of the headline rows; None leaves it out.
        features: weights of the feature network; None is the bundled one.
        train_crops: of each train scene.
        test_crops: of each test scene.
        size: side of a crop in pixels.
        dimensions: of the SqueezeNet rows: principal axes of its 512 features over the train crops.
        seed: of the crops.
    """

    data: str
    out: str
    squeezenet: str | None = None
    features: str | None = None
    train_crops: int = 3
    test_crops: int = 8
    size: int = 64
    dimensions: int = 32
    seed: int = 2602


def run(config: ReferenceConfig) -> Path:
    """Compute the features of all crops and write the file."""
    out = Path(config.out).expanduser()
    if out.suffix != ".safetensors":
        raise ConfigError(f"the file to write ends in .safetensors, got {out}.")
    landuse = LanduseExtractor.load(config.features)
    squeezenet = None if config.squeezenet is None else SqueezeNetFeatures(config.squeezenet)
    scenes = {split: load_scenes(config.data, split) for split in SPLITS}
    if scenes["train"].classes != landuse.classes:
        raise ConfigError(f"the feature network has other classes than {config.data}: {', '.join(landuse.classes)}.")
    sides: dict[str, Crops] = {}
    projection = None
    for number, (split, per_scene) in enumerate(zip(SPLITS, (config.train_crops, config.test_crops), strict=True)):
        crops, place = scene_crops(scenes[split], per_scene, config.size, [config.seed, number])
        found = landuse.arrays(crops.numpy())
        arrays = {name: torch.from_numpy(found[name]) for name in ("features", "spatial", "power")}
        if squeezenet is not None:
            rows = pooled_squeezenet(squeezenet, crops.numpy())
            projection = projection or Projection.principal(rows, config.dimensions)
            arrays["squeezenet"] = projection(rows)
        # Scene ids are unique over both splits, so that a floor can tell them apart.
        first = 0 if split == "train" else len(scenes["train"].labels)
        sides[split] = Crops(arrays, place + first, scenes[split].labels[place])
    networks = {"features": landuse.hash}
    if squeezenet is not None and projection is not None:
        assert config.squeezenet is not None
        networks["squeezenet"] = SqueezeNetExtractor(squeezenet, projection, file_hash(config.squeezenet)).hash
        networks["squeezenet_weights"] = file_hash(config.squeezenet)
    about = {
        "name": "ucmerced96",
        "size": config.size,
        "seed": config.seed,
        "crops_per_scene": {"train": config.train_crops, "test": config.test_crops},
        "data": {split: scenes[split].hash for split in SPLITS},
        "classes": list(landuse.classes),
        "networks": networks,
        "versions": versions(),
    }
    save_reference(out, sides["train"], sides["test"], projection, about)
    size = out.stat().st_size
    if size > LARGEST_BYTES:
        out.unlink()
        raise ConfigError(f"the reference has {size} bytes, more than {LARGEST_BYTES}: take fewer crops.")
    return out


def scene_crops(
    scenes: Scenes, per_scene: int, size: int, seed: list[int]
) -> tuple[UInt8[Tensor, "n size size 3"], Int[Tensor, " n"]]:
    """Crops of every scene at random places, each turned by one of the eight symmetries of the square.

    Args:
        scenes: where to crop.
        per_scene: crops of each.
        size: side in pixels.
        seed: of the places and turns.

    Returns:
        Crops, scene after scene, and the scene of each.

    Raises:
        ConfigError: crops that do not fit, or none.
    """
    count, height, width, _ = scenes.images.shape
    if per_scene < 1 or not 1 <= size <= min(height, width):
        raise ConfigError(f"cannot take {per_scene} crops of {size} pixels from scenes of {height}x{width}.")
    random = np.random.default_rng(seed)
    place = np.repeat(np.arange(count), per_scene)
    top = random.integers(0, height - size + 1, len(place))
    left = random.integers(0, width - size + 1, len(place))
    turn = random.integers(0, 8, len(place))
    span = np.arange(size)
    rows, columns = (top[:, None] + span)[:, :, None], (left[:, None] + span)[:, None, :]
    crops = torch.from_numpy(scenes.images.numpy()[place[:, None, None], rows, columns]).permute(0, 3, 1, 2)
    turned = symmetries(crops, torch.from_numpy(turn))
    return turned.permute(0, 2, 3, 1).contiguous(), torch.from_numpy(place)

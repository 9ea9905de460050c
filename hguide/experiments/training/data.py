"""Land-use scenes, their documented train/test split, and random crops that depend on a seed and a counter only."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from hguide.errors import ConfigError

__all__ = ["Scenes", "crop_centres", "decode_differences", "load_scenes", "random_crops", "symmetries", "to_unit"]

Split = Literal["train", "test"]
SCENE_SIZE = 96
TEST_SCENES_PER_CLASS = 20
# The only identical pair of the archive. It stays on the train side, so that no test scene has a twin there.
IDENTICAL = frozenset({"airplane01", "airplane02"})


@dataclass(frozen=True, eq=False)
class Scenes:
    """Scenes of one split.

    Attributes:
        images: `(n, 96, 96, 3)` RGB.
        labels: `(n,)` index into `classes`.
        sources: stem of each source file.
        classes: class names in label order.
    """

    images: UInt8[Tensor, "n height width 3"]
    labels: Int[Tensor, " n"]
    sources: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def hash(self) -> str:
        """sha256 of the decoded images' bytes."""
        return hashlib.sha256(self.images.cpu().numpy().tobytes()).hexdigest()

    def to(self, device: torch.device) -> Scenes:
        """The same scenes with their images on a device, where crops are then cut; labels stay on the CPU."""
        return replace(self, images=self.images.to(device))


def load_scenes(path: str | Path, split: Split) -> Scenes:
    """Scenes of a split, from `train.npz`/`test.npz` or from the published archive's class folders of TIFFs.

    Args:
        path: a folder that holds either the two `.npz` files and `classes.json`, or one folder of `.tif` files per
            class (directly, or below `Images/`).
        split: "train" (80 scenes a class in the full set) or "test" (20 scenes a class).

    Raises:
        ConfigError: the folder holds neither.
    """
    folder = Path(path)
    if (folder / f"{split}.npz").is_file():
        return _load_coded(folder, split)
    for candidate in (folder, folder / "Images", folder / "UCMerced_LandUse" / "Images"):
        if candidate.is_dir() and any(candidate.glob("*/*.tif")):
            return _load_archive(candidate, split)
    raise ConfigError(
        f"no land-use scenes in {folder}: expected {split}.npz with classes.json, or the published archive's class "
        "folders of .tif files. Give the folder with --data."
    )


def decode_differences(coded: np.ndarray) -> np.ndarray:
    """Images from their lossless difference coding (modulo 256).

    Args:
        coded: `(n, 3, h, w)` uint8, differences along width, then height, red and blue relative to green.

    Returns:
        `(n, h, w, 3)` RGB uint8.
    """
    image = np.cumsum(np.cumsum(coded, axis=3, dtype=np.uint8), axis=2, dtype=np.uint8)
    image[:, 0] += image[:, 1]
    image[:, 2] += image[:, 1]
    return np.ascontiguousarray(image.transpose(0, 2, 3, 1))


def _load_coded(folder: Path, split: Split) -> Scenes:
    classes = tuple(json.loads((folder / "classes.json").read_text()))
    with np.load(folder / f"{split}.npz") as file:
        return Scenes(
            images=torch.from_numpy(decode_differences(file["coded"])),
            labels=torch.from_numpy(file["labels"].astype(np.int64)),
            sources=tuple(name.decode() for name in file["source"]),
            classes=classes,
        )


def _load_archive(folder: Path, split: Split) -> Scenes:
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if any(entry.glob("*.tif"))))
    files = [sorted((folder / name).glob("*.tif"), key=_scene_number) for name in classes]
    chosen = split_files([[file.stem for file in group] for group in files], split)
    picked = [
        (file, label)
        for label, (group, stems) in enumerate(zip(files, chosen, strict=True))
        for file in group
        if file.stem in stems
    ]
    return Scenes(
        images=torch.from_numpy(np.stack([_read_scene(file) for file, _ in picked])),
        labels=torch.tensor([label for _, label in picked]),
        sources=tuple(file.stem for file, _ in picked),
        classes=classes,
    )


def split_files(groups: list[list[str]], split: Split) -> list[set[str]]:
    """The documented split: per class, in order, the first fifth of `RandomState(0).permutation` is test.

    Args:
        groups: file stems of each class, in label order and ordered by number.
        split: which side.

    Returns:
        The stems of that side, per class.
    """
    # The documented split was drawn with numpy's legacy generator.
    random = np.random.RandomState(0)
    sides = []
    for stems in groups:
        free = [stem for stem in stems if stem not in IDENTICAL]
        count = min(TEST_SCENES_PER_CLASS, len(stems) // 5)
        test = {free[i] for i in random.permutation(len(free))[:count]}
        sides.append(test if split == "test" else set(stems) - test)
    return sides


def _scene_number(file: Path) -> tuple[int, str]:
    digits = "".join(character for character in file.stem if character.isdigit())
    return int(digits or 0), file.stem


def _read_scene(file: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as picture:
        rgb = picture.convert("RGB")
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    square = rgb.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((SCENE_SIZE, SCENE_SIZE), Image.Resampling.LANCZOS))


def random_crops(
    scenes: Scenes, count: int, size: int, seed: int, counter: int
) -> tuple[UInt8[Tensor, "count 3 size size"], Int[Tensor, " count"], Int[Tensor, " count"]]:
    """Random crops, each turned by one of the eight symmetries of the square (aerial pictures have no upright).

    The draw is a function of `(seed, counter)` alone, so a resumed training sees what an unbroken one sees.

    Args:
        scenes: where to crop.
        count: number of crops, each of a scene drawn with replacement.
        size: side of a crop in pixels.
        seed: seed of the run.
        counter: number of the draw, e.g. the training step.

    Returns:
        Crops `(count, 3, size, size)` where the scenes' images are, their labels `(count,)` and the scene of each
        `(count,)` on the CPU.
    """
    random = np.random.default_rng([seed, counter])
    n, height, width, _ = scenes.images.shape
    if size > min(height, width):
        raise ConfigError(f"a crop of {size} pixels does not fit scenes of {height}x{width}.")
    index = random.integers(0, n, count)
    top = random.integers(0, height - size + 1, count)
    left = random.integers(0, width - size + 1, count)
    turn = random.integers(0, 8, count)
    span = np.arange(size)
    rows = (top[:, None] + span)[:, :, None]
    columns = (left[:, None] + span)[:, None, :]
    scene = torch.from_numpy(index)
    device = scenes.images.device
    if device.type == "cpu":
        # numpy gathers short rows of bytes several times faster than torch does.
        crops = torch.from_numpy(scenes.images.numpy()[index[:, None, None], rows, columns])
    else:
        place = (torch.from_numpy(each).to(device) for each in (index[:, None, None], rows, columns))
        crops = scenes.images[tuple(place)]
    turned = symmetries(crops.permute(0, 3, 1, 2), torch.from_numpy(turn).to(device))
    return turned, scenes.labels[scene], scene


def symmetries(images: Tensor, which: Int[Tensor, " b"]) -> Tensor:
    """Apply one of the eight symmetries of the square to each image.

    Args:
        images: `(b, c, s, s)`.
        which: `(b,)` in 0..7: bit 0 mirrors left-right, bit 1 mirrors top-bottom, bit 2 swaps the two axes.

    Returns:
        `(b, c, s, s)`, contiguous.
    """
    bit = which.view(-1, 1, 1, 1)
    images = torch.where((bit & 1).bool(), images.flip(3), images)
    images = torch.where((bit & 2).bool(), images.flip(2), images)
    return torch.where((bit & 4).bool(), images.transpose(2, 3), images).contiguous()


def crop_centres(scenes: Scenes, size: int) -> UInt8[Tensor, "n 3 size size"]:
    """The centre crop of every scene: the fixed held-out pictures of a training run."""
    height, width = scenes.images.shape[1:3]
    top, left = (height - size) // 2, (width - size) // 2
    return scenes.images[:, top : top + size, left : left + size].permute(0, 3, 1, 2).contiguous()


def to_unit(images: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Bytes to float32 in [0, 1]."""
    return images.float() / 255

"""Made-up scenes, and the coding of the real ones written another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CLASSES = ("beach", "forest", "river")


def code_differences(images: np.ndarray) -> np.ndarray:
    """The inverse of the documented decoder, written with plain loops over the axes' neighbours."""
    planes = images.transpose(0, 3, 1, 2).astype(np.int64)
    planes[:, 0] -= planes[:, 1]
    planes[:, 2] -= planes[:, 1]
    for axis in (2, 3):
        moved = np.zeros_like(planes)
        index = [slice(None)] * 4
        index[axis] = slice(1, None)
        before = [slice(None)] * 4
        before[axis] = slice(None, -1)
        moved[tuple(index)] = planes[tuple(before)]
        planes = planes - moved
    return (planes % 256).astype(np.uint8)


def picture(label: int, number: int, size: int = 96) -> np.ndarray:
    """A smooth made-up scene whose colour tells its class."""
    random = np.random.default_rng([label, number])
    ramp = np.linspace(0, 60, size)
    plane = ramp[:, None] * random.random() + ramp[None] * random.random() + random.normal(0, 4, (size, size))
    colour = np.array([60 + 60 * label, 150 - 40 * label, 90])
    return np.clip(plane[:, :, None] + colour, 0, 255).astype(np.uint8)


def small_tokenizer(coded: Path, out: Path, **changes: object):  # type: ignore[no-untyped-def]
    from hguide.experiments.training.tokenizer import TokenizerTrainingConfig

    base = {"steps": 2, "epoch_steps": 2, "checkpoint_steps": 1, "batch_size": 2, "crop": 16, "precision": "32-true"}
    shape = {"channels": 32, "multipliers": (1, 1), "latent_channels": 4, "vocabulary": 16, "patch_nums": (1, 4, 8)}
    return TokenizerTrainingConfig(data=str(coded), out=str(out), accelerator="cpu", **(base | shape | changes))

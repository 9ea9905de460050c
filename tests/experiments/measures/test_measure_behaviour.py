"""Measures on pictures that are spoiled more and more: at their floor on real ones, growing with every damage."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hguide.experiments.extractors import LanduseExtractor
from hguide.experiments.measures.frechet_distance import frechet_distance
from hguide.experiments.measures.kernel_distance import kernel_distance
from hguide.experiments.measures.precision_recall import precision_recall
from hguide.images import to_uint8

COUNT, KINDS, SIDE = 96, 4, 64
SLOPES = (0.6, 1.0, 1.4, 1.8)
TINTS = ((0.3, 0.5, 0.3), (0.7, 0.6, 0.5), (0.4, 0.4, 0.6), (0.6, 0.4, 0.35))


@cache
def pictures(seed: int) -> Tensor:
    """Four kinds of textures, each with a colour and a fall of its spectrum of its own, kind by kind."""
    source = torch.Generator().manual_seed(seed)
    frequency = (torch.fft.fftfreq(SIDE)[:, None].square() + torch.fft.rfftfreq(SIDE).square()).sqrt()
    parts = []
    for slope, tint in zip(SLOPES, TINTS, strict=True):
        noise = torch.fft.rfft2(torch.randn(COUNT // KINDS, 1, SIDE, SIDE, generator=source))
        field = torch.fft.irfft2(noise / frequency.clamp_min(1 / SIDE) ** slope, s=(SIDE, SIDE))
        field = (field - field.mean((2, 3), keepdim=True)) / field.std((2, 3), keepdim=True)
        parts.append(torch.tensor(tint)[:, None, None] + 0.12 * field)
    return torch.cat(parts).clamp(0, 1)


def blurred(images: Tensor, width: int) -> Tensor:
    return F.avg_pool2d(F.pad(images, [width // 2] * 4, mode="reflect"), width, 1)


def sharpened(images: Tensor, strength: float) -> Tensor:
    return (images + strength * (images - blurred(images, 3))).clamp(0, 1)


def noisy(images: Tensor, size: float) -> Tensor:
    return (images + size * torch.randn(images.shape, generator=torch.Generator().manual_seed(7))).clamp(0, 1)


def without(images: Tensor, kinds: int) -> Tensor:
    """Some kinds missing, their places taken by other pictures of the first kinds that are left."""
    left = COUNT // KINDS * (KINDS - kinds)
    others = [pictures(seed)[:left] for seed in range(3, 3 + COUNT // left)]
    return torch.cat([images[:left], *others])[:COUNT]


DAMAGE: dict[str, tuple[Callable[..., Tensor], tuple[float, float]]] = {
    "blur": (blurred, (3, 7)),
    "sharpening": (sharpened, (1.0, 4.0)),
    "noise": (noisy, (0.05, 0.2)),
    "missing": (without, (1, 3)),
}


@cache
def network() -> LanduseExtractor:
    return LanduseExtractor.load()


def arrays(images: Tensor) -> dict[str, Tensor]:
    found = network().arrays(to_uint8(images))
    return {name: torch.from_numpy(np.asarray(each)) for name, each in found.items()}


@pytest.fixture(scope="module")
def real() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A reference, and other real pictures, which give the floor."""
    return arrays(pictures(0)), arrays(pictures(1))


@pytest.mark.parametrize("kind", [*DAMAGE])
def test_distances_grow_with_damage(kind: str, real) -> None:
    reference, other = real
    spoil, (little, much) = DAMAGE[kind]
    rows = [other, *(arrays(spoil(pictures(1), amount)) for amount in (little, much))]
    for distance, name in (
        (kernel_distance, "features"),
        (frechet_distance, "features"),
        (frechet_distance, "spatial"),
    ):
        floor, mild, strong = (distance(each[name], reference[name]) for each in rows)
        assert floor < mild < strong, (distance.__name__, name)


def test_distances_of_the_reference_from_itself(real) -> None:
    rows = real[0]["features"]
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-6)
    # Unbiased: below zero by what the pairs of equal rows would add.
    assert kernel_distance(rows, rows) <= 0


def test_precision_falls_with_noise_and_recall_with_missing_kinds(real) -> None:
    reference, other = real
    whole = precision_recall(other["features"], reference["features"])
    worse = precision_recall(arrays(noisy(pictures(1), 0.2))["features"], reference["features"])
    fewer = precision_recall(arrays(without(pictures(1), 3))["features"], reference["features"])
    assert worse.precision < whole.precision - 0.2
    assert fewer.recall < whole.recall - 0.2
    assert fewer.precision > whole.precision - 0.1

"""Interpolation of maps, and the priors that are interpolation alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional

from hguide.errors import ConfigError, near_matches
from hguide.grids import Grid, Step
from hguide.priors.base import SeparablePrior

__all__ = [
    "INTERPOLATIONS",
    "Area",
    "Bicubic",
    "Bilinear",
    "Lanczos",
    "Nearest",
    "Spatial",
    "interpolate",
    "interpolation_matrix",
]

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "area", "lanczos")


def interpolation_matrix(mode: str, source: int, target: int) -> Float64[Tensor, "{target} {source}"]:
    """One axis of an interpolation: the library's own function, applied to the identity.

    Args:
        mode: "nearest", "bilinear", "bicubic" or "area" as `torch.nn.functional.interpolate` computes them
            (`align_corners=False`), or "lanczos" as Pillow does.
        source: size of the axis.
        target: size wanted.

    Returns:
        `(target, source)`, float64.

    Raises:
        ConfigError: unknown mode.
    """
    if mode == "lanczos":
        return _lanczos(source, target)
    if mode not in INTERPOLATIONS:
        raise ConfigError(f"unknown interpolation {mode!r}: {near_matches(mode, INTERPOLATIONS)}")
    columns = torch.eye(source, dtype=torch.float64, device="cpu")[None, :, :, None]
    return functional.interpolate(columns, size=(target, 1), mode=mode)[0, :, :, 0].T.contiguous()


def interpolate(maps: Float[Tensor, "n v h w"], target: Grid, mode: str) -> Float[Tensor, "n v H W"]:
    """Interpolation of channel-first maps, one library call; the readable form of `interpolation_matrix`."""
    if mode != "lanczos":
        return functional.interpolate(maps, size=target, mode=mode)
    rows, columns = (_lanczos(source, size).to(maps) for source, size in zip(maps.shape[-2:], target, strict=True))
    return rows @ maps @ columns.T


def _lanczos(source: int, target: int) -> Tensor:
    """Lanczos-3 weights `sinc(d) sinc(d/3)`, |d| < 3, normalised per row.

    d is the distance of pixel centres in source pixels; where the axis shrinks, in target pixels (as in Pillow).
    """
    ratio = source / target
    centres = (torch.arange(target, dtype=torch.float64, device="cpu") + 0.5) * ratio
    pixels = torch.arange(source, dtype=torch.float64, device="cpu") + 0.5
    distance = (pixels - centres[:, None]) / max(ratio, 1.0)
    weights = torch.where(distance.abs() < 3.0, torch.sinc(distance) * torch.sinc(distance / 3.0), 0.0)
    return weights / weights.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Spatial(SeparablePrior):
    """P = U_h (x) U_w: the map of the step before, interpolated. Baselines of SSG (arXiv 2602.05534, table 5)."""

    mode: ClassVar[str]

    def factors(self, source: Grid, target: Grid, step: Step | None = None) -> tuple[tuple[Tensor, Tensor], ...]:
        """The interpolation of each axis."""
        rows, columns = (interpolation_matrix(self.mode, *sizes) for sizes in zip(source, target, strict=True))
        return ((rows, columns),)

    def reference(
        self, logits: Float[Tensor, "*batch h w v"], target: Grid, step: Step | None = None
    ) -> Float[Tensor, "*batch H W v"]:
        """The same map by one call of the library, without the matrix."""
        maps = logits.movedim(-1, -3)
        carried = interpolate(maps.reshape(-1, *maps.shape[-3:]), target, self.mode)
        return carried.reshape(*maps.shape[:-2], *target).movedim(-3, -1)


@dataclass(frozen=True)
class Nearest(Spatial):
    """The nearest source token, by torch's rule `floor(i h / H)`."""

    mode: ClassVar[str] = "nearest"


@dataclass(frozen=True)
class Bilinear(Spatial):
    """Bilinear interpolation between pixel centres: the "linear" prior of SSG's ablation."""

    mode: ClassVar[str] = "bilinear"


@dataclass(frozen=True)
class Bicubic(Spatial):
    """Bicubic convolution with a = -0.75 between pixel centres, as in torch."""

    mode: ClassVar[str] = "bicubic"


@dataclass(frozen=True)
class Area(Spatial):
    """The mean over each target cell (torch's adaptive average pooling)."""

    mode: ClassVar[str] = "area"


@dataclass(frozen=True)
class Lanczos(Spatial):
    """Lanczos-3 between pixel centres, as in Pillow."""

    mode: ClassVar[str] = "lanczos"

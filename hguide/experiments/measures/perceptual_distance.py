"""Perceptual distance of pairs of pictures, on the maps of any network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hguide.errors import ConfigError

__all__ = ["MeanPerceptualDistance", "lpips_network", "perceptual_distance"]

Distance = Callable[[Tensor, Tensor], Tensor]
Maps = Callable[[Tensor], Tensor | Sequence[Tensor]]


@torch.no_grad()
def perceptual_distance(x: Float[Tensor, "n 3 H W"], y: Float[Tensor, "n 3 H W"], maps: Maps) -> Float64[Tensor, " n"]:
    """Mean over maps of the mean over positions of |phi(x)/|phi(x)| - phi(y)/|phi(y)||^2, from 0 to 4.

    The form of LPIPS (arXiv 1801.03924, eq. 1) with all channel weights 1, on any network: not LPIPS itself.

    Args:
        x: pictures in [0, 1].
        y: their partners.
        maps: feature map or maps `(n, c, h, w)` of pictures, e.g. `FeatureNetwork.feature_map`.
    """
    parts = [
        (_unit(mine) - _unit(theirs)).square().sum(1).mean((1, 2))
        for mine, theirs in zip(_listed(maps(x)), _listed(maps(y)), strict=True)
    ]
    return torch.stack(parts).mean(0)


def _listed(maps: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [maps] if isinstance(maps, Tensor) else maps


def _unit(features: Tensor) -> Tensor:
    features = features.detach().to("cpu", torch.float64)
    return features / features.norm(dim=1, keepdim=True).clamp(min=1e-10)


def lpips_network(network: str = "alex") -> Distance:
    """LPIPS of its authors as a distance of pictures in [0, 1]; needs the package `lpips` and its weights.

    Args:
        network: "alex", "vgg" or "squeeze".

    Raises:
        ConfigError: the package cannot be imported, with the reason.
    """
    try:
        package = import_module("lpips")
    except (ImportError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"LPIPS needs the packages lpips and torchvision (pip install lpips), whose import failed: {error}. "
            "Without them use perceptual_distance on a feature network of your own."
        ) from error
    model: Any = package.LPIPS(net=network, verbose=False).eval()

    @torch.no_grad()
    def distance(x: Tensor, y: Tensor) -> Tensor:
        return model(x, y, normalize=True).flatten()

    return distance


class MeanPerceptualDistance:
    """Mean distance over pairs of pictures, fed batch by batch.

    Args:
        distance: of `(n, 3, H, W)` and `(n, 3, H, W)` to `(n,)`, e.g. `partial(perceptual_distance, maps=...)` or
            `lpips_network()`.
    """

    name = "perceptual distance"
    higher_is_better = False

    def __init__(self, distance: Distance) -> None:
        self.distance = distance
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.count = 0
        self._total = torch.zeros((), dtype=torch.float64)

    def update(self, x: Float[Tensor, "n 3 H W"], y: Float[Tensor, "n 3 H W"]) -> None:
        """Take a batch of pairs."""
        self._total = self._total + self.distance(x, y).detach().to("cpu", torch.float64).sum()
        self.count += len(x)

    def merge(self, other: MeanPerceptualDistance) -> None:
        """Take what another instance with the same distance has gathered."""
        self._total = self._total + other._total
        self.count += other.count

    def compute(self) -> float:
        """Mean distance of what was gathered."""
        if not self.count:
            raise ConfigError("a mean distance needs at least one pair, got none.")
        return float(self._total / self.count)

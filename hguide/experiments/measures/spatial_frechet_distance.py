"""Spatial Frechet distance (sFD): the Frechet distance of a small piece of a feature map, positions kept."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hguide.errors import ConfigError
from hguide.experiments.measures.frechet_distance import gaussian_distance
from hguide.experiments.measures.moments import Moments
from hguide.experiments.measures.pair_measure import PairMeasure
from hguide.grids import Grid

__all__ = ["SpatialFrechetDistance", "spatial_features"]

CHANNELS = 4
POOLED: Grid = (4, 4)


def spatial_features(
    maps: Float[Tensor, "n c h w"], channels: int = CHANNELS, pooled: Grid = POOLED
) -> Float64[Tensor, "n d"]:
    """The first channels of each feature map, averaged over a grid of cells and flattened.

    Taking the first few channels of a map so that positions fit in a small covariance follows the spatial variant of
    arXiv 2103.03841 (section 4, seven channels of 17x17). Here the default is 4 channels on 4x4 cells, 64 dimensions,
    since the covariance of d dimensions wants many times d scenes. A map whose positions are shuffled has the same
    spatial mean, so FD cannot see it, and other spatial features.

    Args:
        maps: feature maps, e.g. of `FeatureNetwork.feature_map`.
        channels: how many, the first ones.
        pooled: grid of cells; cells of maps that it does not divide overlap, as in `adaptive_avg_pool2d`.

    Returns:
        `(n, channels * cells)`.

    Raises:
        ConfigError: the maps have fewer channels or a smaller grid.
    """
    have, grid = maps.shape[1], tuple(maps.shape[2:])
    if not (1 <= channels <= have and 1 <= pooled[0] <= grid[0] and 1 <= pooled[1] <= grid[1]):
        raise ConfigError(
            f"spatial features of {channels} channels on {pooled[0]}x{pooled[1]} cells do not fit maps of {have} "
            f"channels on {grid[0]}x{grid[1]}."
        )
    chosen = maps[:, :channels].detach().to("cpu", torch.float64)
    return torch.nn.functional.adaptive_avg_pool2d(chosen, pooled).flatten(1)


class SpatialFrechetDistance(PairMeasure[Moments]):
    """Frechet distance of `spatial_features`, fed feature maps batch by batch.

    Args:
        channels: of the map, the first ones.
        pooled: grid of cells.
    """

    name = "sFD"
    higher_is_better = False

    def __init__(self, channels: int = CHANNELS, pooled: Grid = POOLED) -> None:
        super().__init__(Moments(), channels=channels, pooled=pooled)

    def update(self, maps: Float[Tensor, "n c h w"], real: bool) -> None:
        """Take a batch of feature maps; `real` says whether they are of the reference."""
        super().update(spatial_features(maps, **self._options), real)

    def compute(self) -> float:
        """Spatial Frechet distance of what was gathered."""
        self.check_counts()
        return gaussian_distance(*self.sample.gaussian(), *self.reference.gaussian())

"""Bands of spatial frequency, each with a weight: one matrix, applied like a prior."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import torch
from jaxtyping import Float64
from torch import Tensor

from hguide.errors import ConfigError
from hguide.grids import Grid, Step
from hguide.priors import SeparablePrior
from hguide.priors.spatial import interpolation_matrix

__all__ = ["Bands", "PyramidLowPass"]


@dataclass(frozen=True)
class Bands(SeparablePrior):
    """W = sum_b w_b (Q_b - Q_{b-1}), bands between low-passes Q_0 = 0 <= Q_1 <= ... <= Q_B = I on one grid.

    Args:
        weights: of the B bands, the lowest first.
        lows: Q_1 ... Q_{B-1}, each separable.

    Raises:
        ConfigError: not one low-pass between each two bands.
    """

    weights: tuple[float, ...] = (1.0,)
    lows: tuple[SeparablePrior, ...] = ()

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.lows) + 1:
            raise ConfigError(f"{len(self.weights)} bands have {len(self.weights) - 1} edges, got {len(self.lows)}.")

    def factors(self, source: Grid, target: Grid, step: Step | None = None) -> tuple[tuple[Tensor, Tensor], ...]:
        """w_B I + sum_b (w_b - w_{b+1}) Q_b."""
        rows, columns = (torch.eye(size, dtype=torch.float64, device="cpu") for size in target)
        terms = [(self.weights[-1] * rows, columns)]
        for low, weight, above in zip(self.lows, self.weights, self.weights[1:], strict=False):
            if weight != above:
                terms.extend(((weight - above) * y, x) for y, x in low.factors(source, target, step))
        return tuple(terms)


@dataclass(frozen=True)
class PyramidLowPass(SeparablePrior):
    """The part of a map that a Gaussian pyramid holds after `level` reductions: reduced so often, expanded so often.

    A reduction of an axis of n is the binomial filter (1, 4, 6, 4, 1)/16 with the border repeated, then bilinear
    interpolation to ceil(n/2); an expansion is bilinear interpolation back. An axis of one is left as it is, so that
    small maps have fewer levels.

    Args:
        level: number of reductions, at least 1.
    """

    level: int = 1

    def factors(self, source: Grid, target: Grid, step: Step | None = None) -> tuple[tuple[Tensor, Tensor], ...]:
        """The low-pass of each axis."""
        return ((_pyramid(target[0], self.level), _pyramid(target[1], self.level)),)


def _pyramid(size: int, level: int) -> Float64[Tensor, "{size} {size}"]:
    sizes = [size]
    for _ in range(level):
        sizes.append((sizes[-1] + 1) // 2)
    pairs = list(pairwise(sizes))
    matrix = torch.eye(size, dtype=torch.float64, device="cpu")
    matrix = reduce(lambda m, pair: interpolation_matrix("bilinear", *pair) @ _blur(pair[0]) @ m, pairs, matrix)
    return reduce(lambda m, pair: interpolation_matrix("bilinear", pair[1], pair[0]) @ m, reversed(pairs), matrix)


def _blur(size: int) -> Float64[Tensor, "{size} {size}"]:
    """The binomial filter of one axis, the border repeated."""
    matrix = torch.zeros(size, size, dtype=torch.float64, device="cpu")
    place = torch.arange(size, device="cpu")
    for offset, weight in zip(range(-2, 3), (1.0, 4.0, 6.0, 4.0, 1.0), strict=True):
        matrix[place, (place + offset).clamp(0, size - 1)] += weight / 16.0
    return matrix

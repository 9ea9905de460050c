"""Frechet distance (FD) between Gaussians fitted to two sets of features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hguide.experiments.measures.moments import Moments
from hguide.experiments.measures.pair_measure import PairMeasure
from hguide.experiments.measures.rows import checked_pair

__all__ = ["FrechetDistance", "frechet_distance", "frechet_statistic", "gaussian_distance"]


def gaussian_distance(
    mean: Float64[Tensor, " d"],
    covariance: Float64[Tensor, "d d"],
    other_mean: Float64[Tensor, " d"],
    other_covariance: Float64[Tensor, "d d"],
) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians.

    |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1^1/2 C2 C1^1/2)^1/2, whose last trace is the sum of the singular values of
    C1^1/2 C2^1/2: real and non-negative whatever the ranks (arXiv 1706.08500, section 2, states it with
    (C1 C2)^1/2, whose numerical root can be complex).

    Args:
        mean: of the first.
        covariance: of the first; symmetric, any rank.
        other_mean: of the second.
        other_covariance: of the second.
    """
    cross = torch.linalg.svdvals(_root(covariance) @ _root(other_covariance)).sum()
    distance = (mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace() - 2 * cross
    return max(float(distance), 0.0)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    # Rounding leaves 1e-17 in place of an exact zero, and its root, 3e-9, would stand in the sum.
    least = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    roots = torch.where(values > least, values, 0.0).sqrt()
    return (vectors * roots) @ vectors.T


def frechet_distance(sample: Float[Tensor, "n d"], reference: Float[Tensor, "m e"]) -> float:
    """Frechet distance of two sets of features, covariances divided by n - 1.

    Biased upward by about tr C / n per side at finite n, hence only comparable at equal counts.

    Args:
        sample: generated rows.
        reference: real rows, as many.

    Raises:
        ConfigError: counts differ or are below two.
        ShapeError: dimensions differ.
        NumericalError: NaN or infinity.
    """
    rows = checked_pair(sample, reference)
    return gaussian_distance(*Moments.of(rows[0]).gaussian(), *Moments.of(rows[1]).gaussian())


def frechet_statistic(
    sample: Float[Tensor, "n d"], reference: Float[Tensor, "m e"]
) -> Callable[[Float64[Tensor, " n"], Float64[Tensor, " n"]], float]:
    """`frechet_distance` as a function of how often each row is counted; for `bootstrap`.

    Args:
        sample: generated rows.
        reference: real rows, as many.
    """
    rows, real = checked_pair(sample, reference)

    def statistic(sample_weights: Tensor, reference_weights: Tensor) -> float:
        return gaussian_distance(*_weighted(rows, sample_weights), *_weighted(real, reference_weights))

    return statistic


def _weighted(rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    total = weights.sum()
    mean = weights @ rows / total
    centred = rows - mean
    return mean, (centred * weights[:, None]).T @ centred / (total - 1)


class FrechetDistance(PairMeasure[Moments]):
    """`frechet_distance`, fed batch by batch; keeps the moments only."""

    name = "FD"
    higher_is_better = False

    def __init__(self) -> None:
        super().__init__(Moments())

    def compute(self) -> float:
        """Frechet distance of what was gathered."""
        self.check_counts()
        return gaussian_distance(*self.sample.gaussian(), *self.reference.gaussian())

"""Count, mean and scatter of rows, gathered batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hguide.errors import ConfigError
from hguide.experiments.measures.rows import check_dimensions, checked_rows

__all__ = ["Moments"]


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and scatter in float64; immutable.

    Two parts join by m = m1 + delta n2/n, S = S1 + S2 + delta delta^T n1 n2/n with delta = m2 - m1 (Chan, Golub and
    LeVeque 1979), which loses no digits where the mean is large beside the spread.

    Attributes:
        count: number of rows.
        mean: `(d,)`.
        scatter: `(d, d)`, sum of (x - mean)(x - mean)^T.
    """

    count: int = 0
    mean: Float64[Tensor, " d"] | None = None
    scatter: Float64[Tensor, "d d"] | None = None

    @classmethod
    def of(cls, features: Float[Tensor, "n d"]) -> Moments:
        """Moments of one batch."""
        rows = checked_rows(features)
        if not len(rows):
            return cls()
        mean = rows.mean(0)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred)

    def add(self, features: Float[Tensor, "n d"]) -> Moments:
        """With a batch more."""
        return self.merge(Moments.of(features))

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets of rows together."""
        if self.mean is None or self.scatter is None:
            return other
        if other.mean is None or other.scatter is None:
            return self
        check_dimensions(len(self.mean), len(other.mean))
        count = self.count + other.count
        delta = other.mean - self.mean
        between = torch.outer(delta, delta) * (self.count * other.count / count)
        return Moments(count, self.mean + delta * (other.count / count), self.scatter + other.scatter + between)

    def gaussian(self) -> tuple[Float64[Tensor, " d"], Float64[Tensor, "d d"]]:
        """Mean and covariance (divided by count - 1).

        Raises:
            ConfigError: fewer than two rows.
        """
        if self.mean is None or self.scatter is None or self.count < 2:
            raise ConfigError(f"a covariance needs at least two rows, got {self.count}.")
        return self.mean, self.scatter / (self.count - 1)

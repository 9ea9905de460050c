"""Intervals over pictures for estimators that repeated samples would mislead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from hguide.errors import ConfigError

__all__ = ["Interval", "Replicates", "leave_out"]


@dataclass(frozen=True)
class Interval:
    """An estimate and where it may lie.

    Attributes:
        estimate: on all pictures.
        low: lower end.
        high: upper end.
    """

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is one."""
        return not self.low <= 0.0 <= self.high

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, eq=False)
class Replicates:
    """An estimate on all pictures, and without each group of them.

    Attributes:
        whole: theta.
        left_out: theta_g, without the g-th group.
    """

    whole: float
    left_out: Float64[np.ndarray, " groups"]

    def __sub__(self, other: Replicates) -> Replicates:
        """The paired difference of two estimates on the same pictures."""
        return Replicates(self.whole - other.whole, self.left_out - other.left_out)

    def interval(self, level: float = 0.95) -> Interval:
        """theta +- t sqrt((G - 1)/G sum_g (theta_g - mean)^2), t Student's with G - 1 degrees of freedom.

        Args:
            level: nominal coverage.
        """
        from scipy.stats import t as student

        groups = len(self.left_out)
        error = float(np.sqrt((groups - 1) / groups * np.square(self.left_out - self.left_out.mean()).sum()))
        width = float(student.ppf((1.0 + level) / 2.0, groups - 1)) * error
        return Interval(self.whole, self.whole - width, self.whole + width)


def leave_out(estimate: Callable[[Int[np.ndarray, " chosen"]], float], pictures: int, groups: int = 10) -> Replicates:
    """An estimate without each of G groups of pictures: the jackknife.

    A bootstrap repeats pictures, and a repeated sample is its own nearest neighbour, which breaks k-NN estimates and
    adds to the bias of plug-in ones; leaving groups out does neither.

    Args:
        estimate: function of the indices of the pictures used.
        pictures: how many there are; index i belongs to group i mod `groups`.
        groups: G.

    Raises:
        ConfigError: fewer pictures than groups, or fewer than two groups.
    """
    if not 2 <= groups <= pictures:
        raise ConfigError(f"a jackknife needs 2 groups or more and a picture in each, got {groups} and {pictures}.")
    everything = np.arange(pictures)
    left_out = [estimate(everything[everything % groups != group]) for group in range(groups)]
    return Replicates(estimate(everything), np.array(left_out))

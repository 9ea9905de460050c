"""Scales and steps: what every part of hguide knows about where in the hierarchy it stands."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

__all__ = ["Grid", "Scale", "Step"]

Grid = tuple[int, int]
"""Height and width of a token map."""


@dataclass(frozen=True)
class Scale:
    """One token map of the hierarchy: its place (from 0) and its grid."""

    index: int
    height: int
    width: int

    @property
    def grid(self) -> Grid:
        """`(height, width)`."""
        return self.height, self.width

    @property
    def tokens(self) -> int:
        """Number of tokens of the full map."""
        return self.height * self.width


@dataclass(frozen=True, eq=False)
class Step:
    """One network call of a run.

    Attributes:
        index: step index k from 0 (papers count from 1); schedules read `index / count`.
        count: number of steps K.
        call: network call at this index, from 0 (MaskGIT iterations, purity sampling).
        scale: the map that this step predicts.
        positions: `(b, n)` flat positions predicted by this call where it is a partial map; None for a full map.
        visible: `(b, h * w)` True where a token is already known, for generators whose steps share one grid.
    """

    index: int
    count: int
    call: int
    scale: Scale
    positions: Int[Tensor, "b n"] | None = None
    visible: Tensor | None = None

    @property
    def grid(self) -> Grid:
        """Grid of the full map this step belongs to."""
        return self.scale.grid

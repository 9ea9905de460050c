"""The grids of the published models' schedules, on which the claims about priors are computed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

from hguide.grids import Grid

__all__ = ["SCHEDULES", "steps"]


def _square(*sides: int) -> tuple[Grid, ...]:
    return tuple((side, side) for side in sides)


SCHEDULES: Mapping[str, tuple[Grid, ...]] = MappingProxyType(
    {
        "VAR-256": _square(1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
        "VAR-512": _square(1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
        "HART-1024": _square(1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
        "Infinity-1M": _square(1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64),
    }
)
"""Name -> grid of each scale (arXiv 2404.02905, 2410.10812, 2412.04431; Infinity at 1:1)."""


def steps(name: str) -> list[tuple[Grid, Grid]]:
    """(grid before, grid) of each step of a schedule after the first."""
    return list(pairwise(SCHEDULES[name]))

"""The grids of the published models' schedules, on which the claims about priors are computed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from types import MappingProxyType

from hguide.grids import Grid

__all__ = ["SCHEDULES", "every_schedule", "steps"]


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


@cache
def every_schedule() -> Mapping[str, tuple[Grid, ...]]:
    """`SCHEDULES`, and Infinity's at its other ratios of height to width.

    Infinity's smaller pictures have the first scales of these.
    """
    from hguide.backends.infinity.scale_schedule import published_ratios, published_schedule

    ratios = [ratio for ratio in published_ratios() if ratio != 1.0]
    other = {f"Infinity-1M, {ratio:g}:1": published_schedule("1M", ratio).grids for ratio in ratios}
    return MappingProxyType({**SCHEDULES, **other})


def steps(name: str) -> list[tuple[Grid, Grid]]:
    """(grid before, grid) of each step of a schedule after the first."""
    return list(pairwise(SCHEDULES[name]))

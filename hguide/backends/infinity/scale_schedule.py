"""The grids of Infinity's scales for each ratio of height to width and each size of picture, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise
from types import MappingProxyType

from hguide.errors import ConfigError, near_matches
from hguide.grids import Grid

__all__ = ["SIZES", "ScaleSchedule", "nearest_ratio", "published_ratios", "published_schedule"]

SIZES: Mapping[str, int] = MappingProxyType({"0.06M": 7, "0.25M": 10, "0.60M": 12, "1M": 13})
"""Size of the picture in megapixels -> how many of the 13 scales of its ratio it has."""


@dataclass(frozen=True)
class ScaleSchedule:
    """The token grids of a run.

    Args:
        grids: (height, width) of each scale in tokens, coarse to fine.
        rope_grid: the grid on which positions are counted: the last one of the largest picture of the same ratio. The
            last of `grids` where none is given.

    Raises:
        ConfigError: no grids, grids without tokens, or grids that shrink.
    """

    grids: tuple[Grid, ...]
    rope_grid: Grid | None = None

    def __post_init__(self) -> None:
        grids = tuple((int(height), int(width)) for height, width in self.grids)
        object.__setattr__(self, "grids", grids)
        if not grids or min(min(grid) for grid in grids) < 1:
            raise ConfigError(f"a schedule has one or more grids of at least one token, got {self.grids}.")
        if any(a[0] > b[0] or a[1] > b[1] for a, b in pairwise(grids)):
            raise ConfigError(f"the grids of a schedule do not shrink, got {grids}.")
        object.__setattr__(self, "rope_grid", tuple(self.rope_grid or grids[-1]))

    @property
    def reference(self) -> Grid:
        """The grid on which positions are counted."""
        assert self.rope_grid is not None
        return self.rope_grid

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each scale."""
        return tuple(height * width for height, width in self.grids)

    @property
    def starts(self) -> tuple[int, ...]:
        """Position in the sequence at which each scale begins."""
        return tuple(sum(self.lengths[:k]) for k in range(len(self.grids)))


def published_schedule(size: str = "1M", aspect: float = 1.0) -> ScaleSchedule:
    """The schedule of the published models.

    Args:
        size: of the picture: "0.06M", "0.25M", "0.60M" or "1M".
        aspect: height over width; the nearest of the 15 published ratios is taken.

    Raises:
        ConfigError: an unknown size, or a ratio that is not positive.

    Source: arXiv 2412.04431, code.
    """
    if size not in SIZES:
        raise ConfigError(f"no schedule for pictures of size {size!r}: {near_matches(size, SIZES)}")
    grids = _table()[nearest_ratio(aspect)]
    return ScaleSchedule(tuple(grids[: SIZES[size]]), grids[-1])


def published_ratios() -> tuple[float, ...]:
    """The published ratios of height to width; those below 1 are inverses cut after three digits."""
    return tuple(_table())


def nearest_ratio(aspect: float) -> float:
    """The published ratio of height to width nearest to `aspect`.

    Raises:
        ConfigError: `aspect` is not positive.
    """
    if not aspect > 0.0:
        raise ConfigError(f"aspect is height over width, a positive number, got {aspect!r}.")
    return min(_table(), key=lambda ratio: abs(ratio - aspect))


@cache
def _table() -> Mapping[float, Sequence[Grid]]:
    """Ratio -> its 13 grids; wide pictures have the grids of tall ones, turned."""
    content = json.loads(files("hguide.backends.infinity").joinpath("scale_schedules.json").read_text())
    table: dict[float, Sequence[Grid]] = {}
    for text, sides in content.items():
        tall, ratio = tuple((height, width) for height, width in sides), float(text)
        table[ratio] = tall
        table[int(1000 / ratio) / 1000] = tuple((width, height) for height, width in tall)
    return MappingProxyType(table)

"""The shapes that the benchmark runs at: those of the published models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from hguide.errors import ConfigError, near_matches
from hguide.grids import Grid

__all__ = ["SHAPES", "Shapes", "chosen"]


@dataclass(frozen=True)
class Shapes:
    """The maps of one model.

    Attributes:
        name: for the command line and the report.
        sides: side of the square map of each step.
        channels: logit channels v; the number of bits for binary channels.
        batches: batch sizes to run at, the smallest first.
    """

    name: str
    sides: tuple[int, ...]
    channels: int
    batches: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what holds no pair of grids.

        Raises:
            ConfigError: fewer than two sides, or a size that is not positive.
        """
        if len(self.sides) < 2 or min(*self.sides, self.channels, *self.batches) < 1 or not self.batches:
            raise ConfigError(
                f"{self.name}: shapes have two or more sides, and positive sizes; got sides {self.sides}, "
                f"{self.channels} channels, batches {self.batches}."
            )

    @property
    def pairs(self) -> tuple[tuple[Grid, Grid], ...]:
        """Consecutive grids, coarse to fine."""
        return tuple(((before, before), (now, now)) for before, now in pairwise(self.sides))


# Batch 16 of VAR-512 and 4 of HART would hold the same 268 MB per map; smaller ones tell the same at less time.
_PUBLISHED = (
    Shapes("var-256", (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), 4096, (1, 16)),
    Shapes("var-512", (1, 2, 3, 4, 6, 9, 13, 18, 24, 32), 4096, (1, 4)),
    Shapes("hart-1024", (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64), 4096, (1,)),
    Shapes("infinity-1m", (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64), 32, (1, 8)),
)

SHAPES: Mapping[str, Shapes] = MappingProxyType({shapes.name: shapes for shapes in _PUBLISHED})
"""The published shapes by name (arXiv 2404.02905, 2410.10812, 2412.04431); Infinity's channels are its bits."""


def chosen(names: Sequence[str], known: Mapping[str, Shapes]) -> tuple[Shapes, ...]:
    """The shapes with these names; all of them where no name is given.

    Raises:
        ConfigError: an unknown name.
    """
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown schedule {name!r}: {near_matches(name, known)}")
    return tuple(known[name] for name in dict.fromkeys(names or known))

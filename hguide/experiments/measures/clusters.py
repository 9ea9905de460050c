"""What a bootstrap draws as one: crops of a scene, images of a seed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from hguide.errors import ConfigError

__all__ = ["Clusters"]

Id = int | str
Ids = Sequence[Hashable] | np.ndarray | Tensor


@dataclass(frozen=True, eq=False)
class Clusters:
    """Which rows are drawn as one.

    Attributes:
        ids: one per row: all integers, or all strings.
        strata: one per row, the same for all rows of an id: draws keep the number of ids in each stratum, for instance
            the scenes per class of a set that is balanced by design.
    """

    ids: tuple[Id, ...]
    strata: tuple[Id, ...] | None = None

    @classmethod
    def of(cls, ids: Ids, strata: Ids | None = None) -> Clusters:
        """From sequences, arrays or tensors of integers or strings."""
        return cls(_plain(ids), None if strata is None else _plain(strata))

    def __post_init__(self) -> None:
        if not self.ids:
            raise ConfigError("nothing to resample: no rows.")
        if self.strata is None:
            return
        if len(self.strata) != len(self.ids):
            raise ConfigError(f"one stratum per row: {len(self.ids)} rows, {len(self.strata)} strata.")
        for name, stratum in zip(self.ids, self.strata, strict=True):
            if self.stratum_of[name] != stratum:
                raise ConfigError(f"rows of {name!r} lie in two strata, {self.stratum_of[name]!r} and {stratum!r}.")

    @cached_property
    def stratum_of(self) -> dict[Id, Id | None]:
        """Stratum of each id; ids sorted, so that draws do not depend on the order of the rows."""
        strata: Sequence[Id | None] = self.strata or [None] * len(self.ids)
        found = dict(zip(self.ids, strata, strict=True))
        return {name: found[name] for name in sorted(found, key=lambda each: (str(type(each)), each))}

    @property
    def count(self) -> int:
        """Number of distinct ids."""
        return len(self.stratum_of)

    @cached_property
    def groups(self) -> Int[Tensor, " n"]:
        """Place of each row's id among the sorted ids."""
        order = {name: place for place, name in enumerate(self.stratum_of)}
        return torch.tensor([order[name] for name in self.ids])

    @cached_property
    def _pools(self) -> list[np.ndarray]:
        pools: dict[Id | None, list[int]] = {}
        for place, stratum in enumerate(self.stratum_of.values()):
            pools.setdefault(stratum, []).append(place)
        return [np.array(pool) for pool in pools.values()]

    def draw(self, random: np.random.Generator) -> Float64[Tensor, " n"]:
        """How often each row counts when as many ids are drawn with replacement."""
        weights = np.zeros(self.count)
        for pool in self._pools:
            weights[pool] = np.bincount(random.integers(0, len(pool), len(pool)), minlength=len(pool))
        return torch.from_numpy(weights)[self.groups]

    def ones(self) -> Float64[Tensor, " n"]:
        """Each row once."""
        return torch.ones(len(self.ids), dtype=torch.float64)


def _plain(values: Ids) -> tuple[Id, ...]:
    """Numbers of tensors and arrays hash by object; their Python twins by value."""
    listed = values.tolist() if isinstance(values, Tensor | np.ndarray) else list(values)
    plain = [each.item() if isinstance(each, Tensor | np.generic) else each for each in listed]
    if len({type(each) for each in plain}) > 1 or not all(isinstance(each, int | str) for each in plain):
        raise ConfigError(
            f"ids are all integers or all strings, got {sorted({type(each).__name__ for each in plain})}."
        )
    return tuple(plain)  # type: ignore[arg-type]

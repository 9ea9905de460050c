"""What measures of a sample against a reference share: update, merge, compute."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from hguide.errors import ConfigError
from hguide.experiments.measures.moments import Moments
from hguide.experiments.measures.rows import Rows, check_counts

__all__ = ["PairMeasure"]


G = TypeVar("G", Rows, Moments)


class PairMeasure(ABC, Generic[G]):
    """A measure that is fed batch by batch, on one process or on several whose parts are merged.

    The interface follows torchmetrics: `update(features, real)` per batch, then `compute()`; `merge` takes what
    another process has gathered. Everything is kept in float64 on the CPU.

    Attributes:
        name: as it stands in tables.
        higher_is_better: direction; None where neither end is good.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool | None]

    def __init__(self, empty: G, **options: Any) -> None:
        self._empty: G = empty
        self._options = options
        self.sample: G = empty
        self.reference: G = empty

    def update(self, features: Tensor, real: bool) -> None:
        """Take a batch.

        Args:
            features: `(n, d)`, one row per image.
            real: True for the reference, False for the sample.
        """
        if real:
            self.reference = self.reference.add(features)
        else:
            self.sample = self.sample.add(features)

    def merge(self, other: PairMeasure[G]) -> None:
        """Take what another instance with the same options has gathered.

        Raises:
            ConfigError: another measure, or other options.
        """
        if type(other) is not type(self) or other._options != self._options:
            raise ConfigError(f"{self} cannot be merged with {other}: same measure and same options only.")
        self.sample = self.sample.merge(other.sample)
        self.reference = self.reference.merge(other.reference)

    def reset(self) -> None:
        """Forget everything."""
        self.sample = self.reference = self._empty

    @abstractmethod
    def compute(self) -> Any:
        """The measure of what was gathered.

        Raises:
            ConfigError: sample and reference have unequal counts, or too few rows.
        """

    def check_counts(self, least: int = 2) -> None:
        """Refuse unequal counts."""
        check_counts(self.sample.count, self.reference.count, least)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self._options.items())})"

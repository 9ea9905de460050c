"""Feature rows as measures take them: checked, in float64, and gathered batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hguide.errors import ConfigError, NumericalError, ShapeError

__all__ = ["Rows", "check_counts", "check_dimensions", "checked_pair", "checked_rows"]


def checked_rows(features: Tensor) -> Float64[Tensor, "n d"]:
    """Finite features in float64 on the CPU.

    Args:
        features: `(n, d)`.

    Raises:
        ShapeError: not a matrix.
        NumericalError: NaN or infinity.
    """
    if features.ndim != 2:
        raise ShapeError(f"features are (samples, dimensions), got the shape {tuple(features.shape)}.")
    rows = features.detach().to("cpu", torch.float64)
    if not torch.isfinite(rows).all():
        bad = int((~torch.isfinite(rows)).any(1).sum())
        raise NumericalError(f"{bad} of {len(rows)} feature rows are not finite.")
    return rows


def check_counts(sample: int, reference: int, least: int = 2) -> None:
    """Refuse unequal counts: the bias of most measures depends on the count.

    Args:
        sample: number of generated rows.
        reference: number of real rows.
        least: the fewest rows that the measure is defined for.

    Raises:
        ConfigError: the counts differ or are too small.
    """
    if sample != reference:
        raise ConfigError(
            f"sample and reference must have equal counts, got {sample} in the sample and {reference} in the "
            "reference: cut both to the smaller one."
        )
    if sample < least:
        raise ConfigError(f"needs at least {least} rows in the sample and in the reference, got {sample}.")


def checked_pair(
    sample: Float[Tensor, "n d"], reference: Float[Tensor, "m e"], least: int = 2
) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, "n d"]]:
    """Both sides in float64, of equal count and dimension.

    Raises:
        ConfigError: the counts differ or are too small.
        ShapeError: the dimensions differ.
        NumericalError: NaN or infinity.
    """
    check_counts(len(sample), len(reference), least)
    check_dimensions(sample.shape[1], reference.shape[1])
    return checked_rows(sample), checked_rows(reference)


def check_dimensions(first: int, second: int) -> None:
    """Refuse features of two networks."""
    if first != second:
        raise ShapeError(f"features of {first} and of {second} dimensions cannot be compared: use one network.")


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows seen so far, in the order they came; immutable."""

    parts: tuple[Float64[Tensor, "_ _"], ...] = ()

    @property
    def count(self) -> int:
        """Number of rows."""
        return sum(len(part) for part in self.parts)

    def add(self, features: Float[Tensor, "n d"]) -> Rows:
        """With a batch more."""
        return self.merge(Rows((checked_rows(features),)))

    def merge(self, other: Rows) -> Rows:
        """Rows of both, these first."""
        if self.parts and other.parts:
            check_dimensions(self.parts[0].shape[1], other.parts[0].shape[1])
        return Rows(self.parts + other.parts)

    def joined(self) -> Float64[Tensor, "n d"]:
        """All rows in one matrix; `(0, 0)` before the first batch."""
        return torch.cat(self.parts) if self.parts else torch.zeros(0, 0, dtype=torch.float64)

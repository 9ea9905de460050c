"""What became of a claim when it was run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hguide.errors import NumericalError

__all__ = ["ROUNDING", "Verdict", "approximate", "exact", "false", "vacuous"]

Kind = Literal["holds exactly", "approximation", "false", "vacuous"]

ROUNDING = 1e-9
"""The largest error of a statement that holds exactly, relative to numbers of order one in float64."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of a check.

    Attributes:
        kind: "holds exactly", "approximation", "false" or "vacuous".
        error: the number that decided: an error, a gap, or the size of a counterexample.
        note: what the number is, in a few words.
    """

    kind: Kind
    error: float
    note: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.note}: {self.error:.3g})"


def exact(error: float, note: str, tolerance: float = ROUNDING) -> Verdict:
    """Holds exactly where the error is rounding, else false."""
    return Verdict("holds exactly" if _finite(error) <= tolerance else "false", error, note)


def approximate(error: float, note: str, tolerance: float = ROUNDING) -> Verdict:
    """An approximation with this error; holds exactly where it is rounding."""
    return Verdict("approximation" if _finite(error) > tolerance else "holds exactly", error, note)


def false(gap: float, note: str, tolerance: float = ROUNDING) -> Verdict:
    """False by a counterexample of this size; holds exactly where there is none beyond rounding."""
    return Verdict("false" if _finite(gap) > tolerance else "holds exactly", gap, note)


def vacuous(number: float, note: str) -> Verdict:
    """True of anything, or saying nothing that could be checked; the number shows why."""
    return Verdict("vacuous", _finite(number), note)


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise NumericalError(f"a verdict needs a finite number, got {number}.")
    return number

"""What a replay found: one comparison per recorded tensor, and the table of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import shorten

__all__ = ["MISS", "NOT_COMPARED", "OK", "Comparison", "Report"]

OK, MISS, NOT_COMPARED = "ok", "MISS", "not compared"
_INDEX = re.compile(r"(?<![A-Za-z0-9])(s|sub|n|K|block)?\d+(?=[._]|$)")
_REASON = 300  # characters of a reason in the table; the comparison keeps all of it
_HEADER = ("case", "quantity", "tensors", "max error", "tolerance", "verdict")


@dataclass(frozen=True)
class Comparison:
    """One recorded tensor beside what this package computes.

    Args:
        case: the recorded file, relative to the directory, without its ending.
        quantity: name of the tensor in that file.
        error: largest absolute difference; for exact quantities the number of places that differ; infinite where the
            two cannot be compared at all (another shape, NaN); None where nothing was compared.
        tolerance: largest error that passes; 0 is exact.
        reason: why nothing was compared, or what is wrong.
        tensors: how many tensors stand behind this line.
    """

    case: str
    quantity: str
    error: float | None
    tolerance: float = 0.0
    reason: str = ""
    tensors: int = 1

    @property
    def verdict(self) -> str:
        """ "ok", "MISS" or "not compared"."""
        if self.error is None:
            return NOT_COMPARED
        return OK if self.error <= self.tolerance else MISS


@dataclass(frozen=True)
class Report:
    """All comparisons of a directory.

    Args:
        directory: what was replayed.
        comparisons: in the order of the files.
    """

    directory: str
    comparisons: tuple[Comparison, ...]

    def of(self, verdict: str) -> tuple[Comparison, ...]:
        """The comparisons with a verdict."""
        return tuple(each for each in self.comparisons if each.verdict == verdict)

    @property
    def compared(self) -> int:
        """Number of recorded tensors that were compared."""
        return sum(each.tensors for each in self.comparisons if each.error is not None)

    @property
    def ok(self) -> bool:
        """True where something was compared and nothing missed."""
        return self.compared > 0 and not self.of(MISS)

    def text(self, *, every: bool = False) -> str:
        """The table and a last line with the verdict of the whole.

        Args:
            every: one line per tensor; else the scales and blocks of a quantity share a line (`s*.block*_out`) that
                shows the worst of them, and each miss keeps a line of its own.
        """
        lines = self.comparisons if every else _gathered(self.comparisons)
        return "\n".join([*_table([_HEADER, *(_cells(each) for each in lines)]), self._summary()])

    def _summary(self) -> str:
        missed = sum(each.tensors for each in self.of(MISS))
        left = sum(each.tensors for each in self.of(NOT_COMPARED))
        if not self.compared:
            return f"{self.directory}: FAILED, nothing was compared ({left} listed as not compared)."
        verdict = "passed" if self.ok else "FAILED"
        return f"{self.directory}: {verdict}, {self.compared} compared, {missed} missed, {left} not compared."


def _gathered(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Scales and blocks of one quantity in one line; misses alone."""
    groups: dict[tuple[str, ...], list[Comparison]] = {}
    for place, each in enumerate(comparisons):
        if each.verdict == MISS:
            key: tuple[str, ...] = (str(place),)
        else:
            key = (each.case, _INDEX.sub(r"\1*", each.quantity), each.verdict, each.reason, str(each.tolerance))
        groups.setdefault(key, []).append(each)
    return [_worst(key, group) for key, group in groups.items()]


def _worst(key: Sequence[str], group: Sequence[Comparison]) -> Comparison:
    if len(group) == 1:
        return group[0]
    errors = [each.error for each in group if each.error is not None]
    first, tensors = group[0], sum(each.tensors for each in group)
    return Comparison(first.case, key[1], max(errors, default=None), first.tolerance, first.reason, tensors)


def _cells(each: Comparison) -> tuple[str, ...]:
    reason = f" ({shorten(each.reason, _REASON)})" if each.reason else ""
    if each.error is None:
        return each.case, each.quantity, str(each.tensors), "-", "-", each.verdict + reason
    exact = each.tolerance == 0.0
    error = f"{each.error:.0f} differ" if exact and math.isfinite(each.error) and each.error else f"{each.error:.1e}"
    tolerance = "exact" if exact else f"{each.tolerance:.0e}"
    return each.case, each.quantity, str(each.tensors), error if each.error else "0", tolerance, each.verdict + reason


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER) - 1)]
    lines = []
    for row in rows:
        left = [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
        right = [cell.rjust(width) for cell, width in zip(row[2:5], widths[2:], strict=True)]
        lines.append("  ".join([*left, *right, row[5]]))
    return lines

"""A table of text with marks, from which Markdown, LaTeX and HTML are written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from string import ascii_uppercase

__all__ = ["BEST", "BETTER", "DIFFERS", "NOTHING", "SECOND", "WORSE", "Column", "Entry", "Row", "Table", "letters"]

BEST, SECOND = "best", "second"
BETTER, WORSE, DIFFERS = "better", "worse", "differs"
NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """What stands above the numbers.

    Attributes:
        name: short.
        higher_is_better: direction; None where neither end is good.
        group: the head over several neighbours, such as their feature network; empty for none.
        description: one sentence.
    """

    name: str
    higher_is_better: bool | None = None
    group: str = ""
    description: str = ""

    @property
    def arrow(self) -> str:
        """Where better values lie: "↑", "↓" or nothing."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]


@dataclass(frozen=True)
class Entry:
    """One number.

    Attributes:
        text: as printed, ASCII; `NOTHING` where there is no number.
        interval: "[low, high]" or empty.
        mark: "best" or "second" of its column; in a table of differences "better", "worse" or "differs" where the
            interval excludes zero; empty for none.
        number: to sort by.
    """

    text: str = NOTHING
    interval: str = ""
    mark: str = ""
    number: float | None = None


@dataclass(frozen=True)
class Row:
    """One cell of the ablation, or the floor.

    Attributes:
        letter: by which figures and texts name the cell; empty for the floor.
        label: in words.
        entries: one per column.
        remark: "baseline", "failed", "partial" or "not run"; empty for none.
        dagger: whether a note explains what is wrong with it.
    """

    letter: str
    label: str
    entries: tuple[Entry, ...]
    remark: str = ""
    dagger: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under columns, with a caption and notes.

    Attributes:
        name: for anchors and labels.
        caption: one sentence.
        columns: of numbers; the column of row labels comes before them.
        rows: cells.
        floor: what real images score, under the rows; None where it is not known.
        notes: how to read it.
        troubles: what the daggers stand for.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    floor: Row | None = None
    notes: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()

    def full_name(self, column: Column) -> str:
        """The column's name, with its group where another column has the same name."""
        alone = sum(each.name == column.name for each in self.columns) == 1
        return column.name if alone or not column.group else f"{column.name} ({column.group})"

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Heads of neighbouring columns and how many each covers."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return found


def letters(hashes: Iterable[str]) -> dict[str, str]:
    """A, B, … Z, AA, AB, … in the order of the cells.

    >>> letters(["1f", "2e"])
    {'1f': 'A', '2e': 'B'}
    """
    return {name: _letter(place) for place, name in enumerate(hashes)}


def _letter(place: int) -> str:
    before, last = divmod(place, len(ascii_uppercase))
    return (_letter(before - 1) if before else "") + ascii_uppercase[last]

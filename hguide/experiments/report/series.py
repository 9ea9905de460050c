"""Cells that differ in one number only, such as the strength."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hguide.experiments.ablation.results import CellResult, Results

__all__ = ["SWEPT", "Series", "series_over", "swept"]

SWEPT = ("strength", "temperature")
"""Axes whose values are numbers."""


@dataclass(frozen=True)
class Series:
    """Cells in the order of a number.

    Attributes:
        label: what they have in common and others have not.
        values: the number of each cell, rising; NaN in a series of one cell that has no such number.
        cells: as many.
    """

    label: str
    values: tuple[float, ...]
    cells: tuple[CellResult, ...]


def series_over(results: Results, axis: str) -> tuple[Series, ...]:
    """All cells in series over a numeric axis; a cell without that number is a series of its own.

    Args:
        results: of the ablation.
        axis: one of `SWEPT`.
    """
    names = [name for name in _varied(results) if name != axis]
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for cell in results.cells:
        common = tuple(str(cell.axes.get(name)) for name in names)
        key = common if _number(cell.axes.get(axis)) is not None else (*common, cell.hash)
        groups.setdefault(key, []).append(cell)
    along = [cell for cell in results.cells if _number(cell.axes.get(axis)) is not None]
    telling = [name for name in names if len({str(cell.axes.get(name)) for cell in along}) > 1]
    return tuple(_series(cells, axis, telling) for cells in groups.values())


def swept(results: Results, axis: str) -> tuple[Series, ...]:
    """The series of at least two cells; empty where the axis does not vary within any."""
    return tuple(each for each in series_over(results, axis) if len(each.cells) > 1)


def _varied(results: Results) -> list[str]:
    return list(dict.fromkeys(name for cell in results.cells for name in cell.varied))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _series(cells: list[CellResult], axis: str, telling: list[str]) -> Series:
    numbers = [_number(cell.axes.get(axis)) for cell in cells]
    pairs = sorted(
        zip([float("nan") if each is None else each for each in numbers], cells, strict=True), key=lambda pair: pair[0]
    )
    label = cells[0].label if len(cells) == 1 else _label(cells[0], axis, telling)
    return Series(label, tuple(value for value, _ in pairs), tuple(cell for _, cell in pairs))


def _label(cell: CellResult, axis: str, telling: list[str]) -> str:
    """What tells a series from the others: values, or the whole guidance where that differs too."""
    values = {name: str(value) for name, value in cell.axes.items() if value is not None}
    if telling and "guidance" not in telling:
        return ", ".join(values[name] for name in telling if name in values)
    # The guidance as written, its placeholders filled, but for the one that runs along the axis.
    text = values.get("guidance", cell.guidance)
    inside = [name for name in values if f"{{{name}}}" in text]
    for name in inside:
        text = text.replace(f"{{{name}}}", name if name == axis else values[name])
    rest = [values[name] for name in telling if name in values and name not in ("guidance", *inside)]
    return ", ".join([text, *rest])

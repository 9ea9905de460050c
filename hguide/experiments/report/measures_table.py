"""The main table: every measure of every cell with its interval, best and second marked, and the floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hguide.experiments.ablation.results import CellResult, Estimate, MeasureInfo, Results
from hguide.experiments.report.numbers import interval_text, number_text, ranks
from hguide.experiments.report.table import Column, Entry, Row, Table, letters

__all__ = ["REMARKS", "measures_table", "trouble"]

REMARKS: Mapping[str, str] = {"partial": "partial", "failed": "failed", "missing": "not run"}
"""Status of a cell -> how tables name it; "done" needs no name."""

FLOOR = "real images"


def measures_table(results: Results) -> Table:
    """One row per cell, one column per measure and cost."""
    columns = [_column(each) for each in results.measures]
    entries = [_entries(results.cells, each) for each in results.measures]
    floor = [_entry(results.floor.get(each.key), each.digits) for each in results.measures]
    for column, values in _costs(results.cells):
        columns.append(column)
        entries.append(values)
        floor.append(Entry())
    names = letters(each.hash for each in results.cells)
    rows = tuple(
        Row(
            names[cell.hash],
            cell.label,
            tuple(column[place] for column in entries),
            "baseline" if cell.hash == results.baseline and cell.status == "done" else REMARKS.get(cell.status, ""),
            cell.status != "done",
        )
        for place, cell in enumerate(results.cells)
    )
    return Table(
        "measures",
        results.title,
        tuple(columns),
        rows,
        Row("", FLOOR, tuple(floor)) if results.floor else None,
        _notes(results, rows),
        _troubles(results, rows),
    )


def trouble(cell: CellResult, wanted: int) -> str:
    """What is wrong with a cell that is not done, in one line.

    Args:
        cell: partial, failed or missing.
        wanted: images that were asked for.
    """
    words = {
        "partial": f"partial, {cell.count} of {wanted} images; takes no part in best and second",
        "failed": f"failed after {cell.count} of {wanted} images" if cell.count else "failed",
        "missing": "not run yet",
    }[cell.status]
    return f"{words}: {cell.error}" if cell.error else words


def _column(measure: MeasureInfo) -> Column:
    return Column(measure.name, measure.higher_is_better, measure.network or "pixels", measure.description)


def _entry(value: Estimate | None, digits: int, mark: str = "") -> Entry:
    if value is None:
        return Entry()
    text = number_text(value.estimate, digits)
    return Entry(text, interval_text(value.low, value.high, digits), mark, value.estimate)


def _entries(cells: Sequence[CellResult], measure: MeasureInfo) -> list[Entry]:
    found = [_entry(cell.measures.get(measure.key), measure.digits) for cell in cells]
    ranked = [
        entry.text if cell.status == "done" and entry.number is not None else None
        for cell, entry in zip(cells, found, strict=True)
    ]
    marks = ranks(ranked, measure.higher_is_better)
    return [Entry(each.text, each.interval, mark, each.number) for each, mark in zip(found, marks, strict=True)]


def _costs(cells: Sequence[CellResult]) -> list[tuple[Column, list[Entry]]]:
    """Time and, where some device told it, memory; not marked, since the machine decides them too."""
    times = [None if each.seconds_per_image is None else 1000 * each.seconds_per_image for each in cells]
    memory = [each.peak_memory_mb for each in cells]
    found = [(Column("ms/image", None, "cost", "Sampling and decoding, mean over the blocks."), times)]
    if any(each is not None for each in memory):
        found.append((Column("MB", None, "cost", "Peak memory of the device while the cell ran."), memory))
    return [
        (column, [Entry() if value is None else Entry(f"{value:.0f}", "", "", value) for value in values])
        for column, values in found
    ]


def _notes(results: Results, rows: Sequence[Row]) -> tuple[str, ...]:
    wanted = results.seeds.get("count", 0)
    centred = dict.fromkeys(each.name for each in results.measures if each.interval == "centred")
    notes = [f"{wanted} images per cell. In brackets: 95 % bootstrap intervals over seeds and scenes."]
    if centred:
        notes[0] += f" Intervals of {', '.join(centred)} are centred: the bias of the replicates is taken out."
    if any(entry.mark for row in rows for entry in row.entries):
        notes.append(
            "Bold: best; underlined: second, among finished cells, by the printed digits. Intervals that overlap can "
            "still differ: see the paired differences."
        )
    if results.floor:
        notes.append(
            f"{FLOOR}: test crops against train crops at the same count, what a perfect generator would score."
        )
    return tuple(notes)


def _troubles(results: Results, rows: Sequence[Row]) -> tuple[str, ...]:
    pairs = zip(rows, results.cells, strict=True)
    wanted = results.seeds.get("count", 0)
    return tuple(f"† {row.letter}: {trouble(cell, wanted)}." for row, cell in pairs if cell.status != "done")

"""The table of paired differences: each cell less the baseline, marked where the interval excludes zero."""

from __future__ import annotations

from hguide.experiments.ablation.results import Comparison, MeasureInfo, Results
from hguide.experiments.report.numbers import interval_text, number_text
from hguide.experiments.report.table import BETTER, DIFFERS, WORSE, Column, Entry, Row, Table, letters

__all__ = ["differences_table", "verdict"]


def differences_table(results: Results) -> Table | None:
    """One row per cell that was compared, one column per measure; None where nothing was compared."""
    found = {(each.cell, each.measure): each for each in results.comparisons if each.cell != each.against}
    measures = [each for each in results.measures if any(key == each.key for _, key in found)]
    cells = [each for each in results.cells if any(name == each.hash for name, _ in found)]
    if not found:
        return None
    names = letters(each.hash for each in results.cells)
    rows = tuple(
        Row(names[cell.hash], cell.label, tuple(_entry(found.get((cell.hash, each.key)), each) for each in measures))
        for cell in cells
    )
    against = ", ".join(names[name] for name in dict.fromkeys(each.against for each in found.values()))
    columns = tuple(
        Column(each.name, each.higher_is_better, each.network or "pixels", each.description) for each in measures
    )
    return Table(
        "differences",
        f"Paired differences: each cell less the baseline {against}, over the same seeds and scenes",
        columns,
        rows,
        notes=_notes(results, len(found), sum(each.excludes_zero for each in found.values())),
    )


def verdict(comparison: Comparison, measure: MeasureInfo) -> str:
    """ "better", "worse" or "differs" where the interval excludes zero, else nothing."""
    if not comparison.excludes_zero:
        return ""
    if measure.higher_is_better is None:
        return DIFFERS
    return BETTER if (comparison.estimate > 0) == measure.higher_is_better else WORSE


def _entry(comparison: Comparison | None, measure: MeasureInfo) -> Entry:
    if comparison is None:
        return Entry()
    digits = measure.digits
    return Entry(
        number_text(comparison.estimate, digits, sign=True),
        interval_text(comparison.low, comparison.high, digits, sign=True),
        verdict(comparison, measure),
        comparison.estimate,
    )


def _notes(results: Results, compared: int, outside: int) -> tuple[str, ...]:
    marks = "▲ better and ▼ worse than the baseline, where the 95 % interval of the difference excludes zero"
    if any(each.higher_is_better is None for each in results.measures):
        marks += "; ◆ differs in a measure without a good end"
    return (
        f"{marks}; no mark: not told apart with these images.",
        f"{outside} of {compared} intervals exclude zero; with no differences at all, chance alone would give about "
        f"{0.05 * compared:.1f}. The intervals are not corrected for the number of comparisons.",
    )

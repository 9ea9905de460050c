"""Every measure along a numeric axis, such as the strength: a line and a band per prior and schedule."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

from hguide.experiments.ablation.results import CellResult, MeasureInfo, Results
from hguide.experiments.report.figure_style import MUTED, axis_label, cell_styles, cut, figure
from hguide.experiments.report.series import Series, swept

__all__ = ["sweep_figure"]

ACROSS, TITLE = (4, 5, 3), 30


def sweep_figure(results: Results, axis: str) -> Any | None:
    """One panel per measure; None where no series has two finished cells on the axis.

    Bands are 95 % intervals. The baseline, where it is no part of a series, is a dashed line with its own band; real
    images are a dotted line.

    Args:
        results: of the ablation.
        axis: "strength" or "temperature".
    """
    series = [each for each in swept(results, axis) if sum(cell.status == "done" for cell in each.cells) > 1]
    measures = [each for each in results.measures if any(_values(line, each)[0] for line in series)]
    if not series or not measures:
        return None
    # The number of columns that leaves the fewest places empty.
    across = min(min(ACROSS, key=lambda columns: -len(measures) % columns), len(measures))
    down = -(-len(measures) // across)
    drawn = figure(max(6.0, 2.75 * across), 2.35 * down + 0.5 + 0.2 * len(series))
    grid = drawn.subplots(down, across, squeeze=False, sharex=True)
    for place, axes in enumerate(grid.flat):
        if place < len(measures):
            _panel(axes, results, series, measures[place])
        else:
            axes.set_visible(False)
    for axes in grid.flat[max(0, len(measures) - across) : len(measures)]:
        axes.set_xlabel(axis)
        axes.tick_params(labelbottom=True)
    handles = {label: handle for axes in grid.flat for handle, label in zip(*_legend(axes), strict=True)}
    drawn.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=1 if len(handles) < 4 else 2)
    return drawn


def _legend(axes: Any) -> tuple[list[Any], list[str]]:
    return axes.get_legend_handles_labels()


def _values(series: Series, measure: MeasureInfo) -> tuple[list[float], list[CellResult]]:
    pairs = [
        (value, cell)
        for value, cell in zip(series.values, series.cells, strict=True)
        if cell.status == "done" and measure.key in cell.measures
    ]
    return [value for value, _ in pairs], [cell for _, cell in pairs]


def _panel(axes: Any, results: Results, series: Sequence[Series], measure: MeasureInfo) -> None:
    styles = cell_styles(results)
    for line in series:
        values, cells = _values(line, measure)
        if not cells:
            continue
        style, found = styles[cells[0].hash], [cell.measures[measure.key] for cell in cells]
        axes.fill_between(
            values, [each.low for each in found], [each.high for each in found], color=style.colour, alpha=0.15, lw=0
        )
        axes.plot(
            values,
            [each.estimate for each in found],
            color=style.colour,
            linestyle=style.dash,
            marker=style.marker,
            markersize=4.5,
            label=cut(line.label, 80),
        )
    _baseline(axes, results, series, measure)
    floor = results.floor.get(measure.key)
    low, high = axes.get_ylim()
    if floor is not None and low - (high - low) <= floor.estimate <= high + (high - low):
        axes.axhline(floor.estimate, color=MUTED, linestyle=(0, (1, 2)), linewidth=1.2, label="real images")
    axes.set_title(fill(axis_label(results, measure, vertical=True), TITLE))


def _baseline(axes: Any, results: Results, series: Sequence[Series], measure: MeasureInfo) -> None:
    if any(cell.hash == results.baseline for line in series for cell in line.cells):
        return
    cell = next((each for each in results.cells if each.hash == results.baseline), None)
    if cell is None or cell.status != "done" or measure.key not in cell.measures:
        return
    found = cell.measures[measure.key]
    axes.axhspan(found.low, found.high, color="black", alpha=0.07, linewidth=0)
    label = f"baseline: {cut(cell.label, 70)}"
    axes.axhline(found.estimate, color="black", linestyle=(0, (5, 2)), linewidth=1.1, label=label)

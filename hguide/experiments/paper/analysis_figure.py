"""The figure of an analysis: one panel per quantity, one line per row, 95 % intervals as bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hguide.experiments.trace.figure_style import INK, LINES, MUTED, STYLE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hguide.experiments.paper.analysis import AnalysisTable

__all__ = ["analysis_figure"]

_ACROSS = 3


def analysis_figure(table: AnalysisTable) -> Figure:
    """Every quantity over the places of the first column; what stands for all places is set apart on the right.

    Args:
        table: as measured.
    """
    import matplotlib

    quantities = list(dict.fromkeys(quantity for _, _, quantity, _, _ in table.values))
    across = min(_ACROSS, len(quantities))
    down = -(-len(quantities) // across)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(0.6 + 4.2 * across, 1.0 + 3.0 * down)
        figure.suptitle(f"{table.preset.title}\n{table.preset.source}, on {table.model}", fontsize=11, color=INK)
        panels = figure.subplots(down, across, squeeze=False)
        for axes in panels.flat[len(quantities) :]:
            axes.set_visible(False)
        for axes, quantity in zip(panels.flat, quantities, strict=False):
            _panel(axes, table, quantity)
        panels.flat[0].legend(frameon=False, fontsize=8)
        return figure


def _panel(axes: Axes, table: AnalysisTable, quantity: str) -> None:
    every = list(dict.fromkeys(place for place, *_ in table.values))
    places = [place for place in every if place != table.whole]
    for number, row in enumerate(table.preset.rows):
        colour = LINES[number % len(LINES)]
        found = {
            place: interval
            for place, label, name, interval, _ in table.values
            if (label, name) == (row.label, quantity)
        }
        at = [place for place, name in enumerate(places) if name in found]
        line = [found[places[place]] for place in at]
        axes.fill_between(at, [each.low for each in line], [each.high for each in line], color=colour, alpha=0.2, lw=0)
        axes.plot(at, [each.estimate for each in line], color=colour, lw=1.6, marker="o", ms=3.5, label=row.label)
        if table.whole in found:
            whole = found[table.whole]
            # A percentile interval of few replicates may lie beside its estimate.
            reach = [[max(0.0, whole.estimate - whole.low)], [max(0.0, whole.high - whole.estimate)]]
            axes.errorbar([len(places) + 0.15 * number], [whole.estimate], reach, color=colour, marker="s", ms=4)
    if table.whole:
        axes.axvline(len(places) - 0.5, color=MUTED, lw=0.8, ls=":")
    axes.set_xticks(range(len(every)), [*places, *(["all"] if table.whole else [])], fontsize=8)
    if len(every) > 8 or max(map(len, places)) > 6:
        axes.tick_params(axis="x", rotation=45)
    axes.set_title(quantity)
    axes.set_xlabel(table.first)
    axes.spines[["top", "right"]].set_visible(False)

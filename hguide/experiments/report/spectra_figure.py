"""Power of generated pictures over that of real ones, by spatial frequency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hguide.experiments.ablation.results import CellResult, Results
from hguide.experiments.report.figure_style import MUTED, Style, cell_styles, cut, figure, short
from hguide.experiments.report.series import SWEPT, series_over, swept
from hguide.experiments.report.table import letters

__all__ = ["Panel", "spectra_figure", "spectra_panels"]

LINES, ACROSS = 5, 2
# Inches: of a panel with its labels, and of a line of the legend below it.
HEIGHT, LINE = 3.3, 0.165
# Ratios labelled where the panels span more than a factor of `WIDE`; below, evenly spaced numbers read better.
TICKS, WIDE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0), 5.0


@dataclass(frozen=True)
class Panel:
    """Cells whose spectra are drawn over each other.

    Attributes:
        title: of a sweep; empty for other cells.
        cells: in order.
        labels: of the lines, one per cell.
    """

    title: str
    cells: tuple[CellResult, ...]
    labels: tuple[str, ...]


def spectra_panels(results: Results) -> list[Panel]:
    """One panel per sweep, the other cells by `LINES`; the baseline is drawn in all."""
    names = letters(each.hash for each in results.cells)
    there = {each.hash for each in results.cells if each.spectrum is not None and each.status in ("done", "partial")}
    axis = next((each for each in SWEPT if swept(results, each)), SWEPT[0])
    sweeps, rest = [], []
    for each in series_over(results, axis):
        pairs = [(x, cell) for x, cell in zip(each.values, each.cells, strict=True) if cell.hash in there]
        if len(pairs) > 1:
            labels = tuple(f"{names[cell.hash]}  {axis} {value:g}" for value, cell in pairs)
            sweeps.append(Panel(f"{cut(each.label, 50)}, by {axis}", tuple(cell for _, cell in pairs), labels))
        else:
            rest += [cell for _, cell in pairs if cell.hash != results.baseline]
    parts = [tuple(rest[first : first + LINES]) for first in range(0, len(rest), LINES)]
    panels = [Panel("", part, tuple(short(cell, names[cell.hash]) for cell in part)) for part in parts] + sweeps
    if not panels and results.baseline in there:
        panels = [Panel("", (), ())]
    return panels


def spectra_figure(results: Results) -> Any | None:
    """The ratio per frequency, logarithmic, best at 1; None where no cell has a spectrum."""
    panels = spectra_panels(results)
    if not panels:
        return None
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    # A legend has the real images and the baseline too; a row is as high as its longest one asks.
    longest = [
        max(len(each.cells) for each in panels[first : first + across]) for first in range(0, len(panels), across)
    ]
    drawn = figure(5.2 * across if across > 1 else 7.2, sum(HEIGHT + LINE * (lines + 2) for lines in longest))
    grid = drawn.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for place, axes in enumerate(grid.flat):
        if place < len(panels):
            _panel(axes, results, panels[place])
            axes.set_xlabel("spatial frequency (cycles per pixel)")
            axes.tick_params(labelbottom=True)
        else:
            axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel("generated / real power  (best: 1)")
    _ticks(grid[0, 0])
    return drawn


def _panel(axes: Any, results: Results, panel: Panel) -> None:
    names, styles = letters(each.hash for each in results.cells), cell_styles(results)
    axes.axhline(1.0, color=MUTED, linewidth=3, alpha=0.35, label="real images", zorder=1)
    for place, (cell, label) in enumerate(zip(panel.cells, panel.labels, strict=True)):
        style = styles[cell.hash]
        if panel.title:
            style = Style(_graded(place, len(panel.cells)), style.marker, style.dash)
        _line(axes, cell, style, label)
    baseline = next((each for each in results.cells if each.hash == results.baseline), None)
    if baseline is not None and baseline.spectrum is not None and baseline not in panel.cells:
        _line(axes, baseline, Style("#000000", "", "-"), f"{short(baseline, names[baseline.hash])} (baseline)")
    axes.set_yscale("log")
    axes.set_title(panel.title)
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.14), borderaxespad=0.0, fontsize=8)


def _graded(place: int, count: int) -> str:
    """Dark to light along a sweep, in a map that colour-blind readers see rising."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps["cividis"](0.8 * place / max(1, count - 1)))


def _line(axes: Any, cell: CellResult, style: Style, label: str) -> None:
    assert cell.spectrum is not None
    axes.plot(
        cell.spectrum.frequency,
        cell.spectrum.ratio,
        color=style.colour,
        linestyle=style.dash,
        marker=style.marker,
        markersize=4.5,
        markevery=max(1, len(cell.spectrum.frequency) // 8),
        label=label,
    )


def _ticks(axes: Any) -> None:
    """Ratios in plain numbers; a power of ten alone would leave most panels without a label."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(FixedLocator(TICKS) if high > WIDE * low else MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())

"""Time and memory of each cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hguide.experiments.ablation.results import CellResult, Results
from hguide.experiments.report.figure_style import INK, cell_styles, figure, short
from hguide.experiments.report.table import letters

__all__ = ["cost_figure"]


def cost_figure(results: Results) -> Any | None:
    """Bars of time per image and, where known, of peak memory, in the order of the table; None without a time."""
    cells = [each for each in results.cells if each.seconds_per_image is not None]
    if not cells:
        return None
    times = [1000 * each.seconds_per_image for each in cells if each.seconds_per_image is not None]
    memory = [each.peak_memory_mb for each in cells]
    with_memory = any(each is not None for each in memory)
    drawn = figure(10.4 if with_memory else 7.6, 1.0 + 0.3 * len(cells))
    panels = drawn.subplots(1, 2 if with_memory else 1, sharey=True, squeeze=False)[0]
    names = letters(each.hash for each in results.cells)
    _bars(panels[0], results, cells, times)
    panels[0].set_xlabel("time per image (ms, ← better)")
    panels[0].set_yticks(range(len(cells)), [short(cell, names[cell.hash], 44) for cell in cells])
    panels[0].invert_yaxis()
    if with_memory:
        _bars(panels[1], results, cells, memory)
        panels[1].set_xlabel("peak memory (MB, ← better)")
    return drawn


def _bars(axes: Any, results: Results, cells: Sequence[CellResult], values: Sequence[float | None]) -> None:
    styles = cell_styles(results)
    largest = max(each for each in values if each is not None)
    for place, (cell, value) in enumerate(zip(cells, values, strict=True)):
        colour = styles[cell.hash].colour
        if value is not None:
            axes.barh(place, value, height=0.62, color=colour, alpha=0.75 if cell.hash != results.baseline else 0.85)
        text = "not measured" if value is None else f"{value:.0f}"
        if cell.streams and cell.network_calls and axes.get_subplotspec().colspan.start == 0:
            text += f"   ({cell.network_calls} steps × {cell.streams} stream{'s' * (cell.streams != 1)})"
        axes.text((value or 0.0) + 0.015 * largest, place, text, va="center", fontsize=8, color=INK)
    axes.set_xlim(0, 1.45 * largest)
    axes.grid(visible=False, axis="y")

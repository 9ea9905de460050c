"""Two measures against each other: a point per cell, lines along sweeps, and the cells that no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hguide.experiments.ablation.results import CellResult, Estimate, MeasureInfo, Results
from hguide.experiments.report.figure_style import INK, MUTED, axis_label, cell_styles, figure, short
from hguide.experiments.report.series import SWEPT, series_over, swept
from hguide.experiments.report.table import letters

__all__ = ["measure_of", "pareto_cells", "pareto_figure", "pareto_front"]


def measure_of(results: Results, key: str) -> MeasureInfo | None:
    """The measure of a key, if some finished cell has it."""
    there = any(key in cell.measures and cell.status == "done" for cell in results.cells)
    return next((each for each in results.measures if each.key == key and there), None)


def pareto_cells(results: Results, x: str, y: str) -> tuple[CellResult, ...]:
    """The finished cells that have both measures."""
    return tuple(each for each in results.cells if each.status == "done" and {x, y} <= set(each.measures))


def pareto_front(points: Sequence[tuple[float, float]], x_higher: bool, y_higher: bool) -> list[int]:
    """Places of the points that no other beats: at least as good in both and better in one.

    Args:
        points: (x, y).
        x_higher: whether higher is better along x.
        y_higher: along y.

    Returns:
        Places in the order of rising x.
    """
    signed = [(x if x_higher else -x, y if y_higher else -y) for x, y in points]
    front = [
        place
        for place, (x, y) in enumerate(signed)
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in signed)
    ]
    return sorted(front, key=lambda place: points[place])


def pareto_figure(results: Results, pairs: Sequence[tuple[str, str]]) -> Any | None:
    """One panel per pair of measures (keys along x and y) that some cell has; None where there is none."""
    found = [(measure_of(results, x), measure_of(results, y)) for x, y in pairs]
    panels = [(x, y) for x, y in found if x and y and pareto_cells(results, x.key, y.key)]
    if not panels:
        return None
    names = letters(each.hash for each in results.cells)
    shown = {cell.hash: cell for x, y in panels for cell in pareto_cells(results, x.key, y.key)}
    across = 2 if len(panels) > 1 else 1
    rows = -(-len(shown) // across)
    drawn = figure(5.2 * len(panels), 4.1 + 0.19 * rows)
    for axes, (x, y) in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, results, x, y)
    styles = cell_styles(results)
    handles = [_handle(styles[name], short(cell, names[name])) for name, cell in shown.items()]
    drawn.legend(handles=handles, loc="outside lower center", ncols=across)
    return drawn


def _handle(style: Any, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=style.colour, marker=style.marker, linestyle="", markerfacecolor="white", label=label)


def _panel(axes: Any, results: Results, x: MeasureInfo, y: MeasureInfo) -> None:
    cells = pareto_cells(results, x.key, y.key)
    points = [(cell.measures[x.key].estimate, cell.measures[y.key].estimate) for cell in cells]
    _sweep_lines(axes, results, x.key, y.key)
    names, styles = letters(each.hash for each in results.cells), cell_styles(results)
    for cell, point in zip(cells, points, strict=True):
        style, letter = styles[cell.hash], names[cell.hash]
        axes.errorbar(
            *point,
            xerr=_arms(cell.measures[x.key]),
            yerr=_arms(cell.measures[y.key]),
            color=style.colour,
            marker=style.marker,
            markersize=13,
            markerfacecolor="white",
            markeredgewidth=1.6,
            elinewidth=0.9,
            alpha=0.95,
            label=letter,
            zorder=3,
        )
        axes.annotate(letter, point, ha="center", va="center", fontsize=7.5, color=INK, zorder=5)
    if x.higher_is_better is not None and y.higher_is_better is not None and len(cells) > 1:
        front = [points[place] for place in pareto_front(points, x.higher_is_better, y.higher_is_better)]
        # Between two points of the front lies the corner that both beat, not a straight line of mixtures.
        where = "post" if not x.higher_is_better else "pre"
        axes.step(*zip(*front, strict=True), where=where, color="#c3c8d0", linewidth=5, zorder=1, label="front")
    _floor(axes, results, x.key, y.key)
    axes.set(
        xlabel=axis_label(results, x), ylabel=axis_label(results, y, vertical=True), title=f"{y.name} against {x.name}"
    )


def _arms(value: Estimate) -> list[list[float]]:
    """Lengths of the error bars; an estimate beyond its own interval has none on that side."""
    return [[max(0.0, value.estimate - value.low)], [max(0.0, value.high - value.estimate)]]


def _sweep_lines(axes: Any, results: Results, x: str, y: str) -> None:
    axis = next((each for each in SWEPT if swept(results, each)), None)
    styles = cell_styles(results)
    for each in series_over(results, axis) if axis else ():
        cells = [cell for cell in each.cells if cell.status == "done" and {x, y} <= set(cell.measures)]
        if len(cells) > 1:
            style = styles[cells[0].hash]
            where = [(cell.measures[x].estimate, cell.measures[y].estimate) for cell in cells]
            axes.plot(*zip(*where, strict=True), color=style.colour, linestyle=style.dash, linewidth=1.2, zorder=2)


def _floor(axes: Any, results: Results, x: str, y: str) -> None:
    """What real images score, where that is near the cells; far away it would only squeeze them."""
    limits = {x: axes.get_xlim(), y: axes.get_ylim()}
    near = {key: _near(results.floor.get(key), limits[key]) for key in (x, y)}
    line = {"color": MUTED, "linestyle": (0, (1, 2)), "linewidth": 1.2}
    text = {"s": "real images", "fontsize": 7.5, "color": MUTED, "va": "bottom"}
    if near[x] is not None:
        axes.axvline(near[x], **line, label=f"floor of {x}")
        axes.text(near[x], 0.01, transform=axes.get_xaxis_transform(), rotation=90, **text)
    if near[y] is not None:
        axes.axhline(near[y], **line, label=f"floor of {y}")
        # On the side away from the upright line and its label.
        right = near[x] is not None and near[x] < sum(limits[x]) / 2
        where, side = (0.99, "right") if right else (0.01, "left")
        axes.text(where, near[y], transform=axes.get_yaxis_transform(), ha=side, **text)


def _near(value: Estimate | None, limits: tuple[float, float]) -> float | None:
    """A floor within one width of the axis beyond its ends."""
    low, high = limits
    within = value is not None and low - (high - low) <= value.estimate <= high + (high - low)
    return value.estimate if value is not None and within else None

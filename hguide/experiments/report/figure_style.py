"""What all figures share: colours that colour-blind readers tell apart, markers, dashes, fonts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hguide.experiments.ablation.results import CellResult, MeasureInfo, Results
from hguide.experiments.report.series import SWEPT, series_over, swept

__all__ = ["INK", "MUTED", "Style", "axis_label", "cell_styles", "cut", "figure", "short", "styled"]

NO_BREAK = "\N{NO-BREAK SPACE}"
INK, MUTED = "#1b1f24", "#6b7280"
BASELINE = "#000000"
# Okabe and Ito's colours without yellow, which is too light on white; markers and dashes repeat what colour says.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "<", ">")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (9, 3)))

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    # A dollar sign in a label is a dollar sign.
    "text.parse_math": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "savefig.facecolor": "white",
    # Equal results give equal files.
    "svg.hashsalt": "hguide",
}


@dataclass(frozen=True)
class Style:
    """How a cell is drawn in every figure.

    Attributes:
        colour: of lines and markers.
        marker: its shape.
        dash: of lines.
    """

    colour: str
    marker: str
    dash: Any


def cell_styles(results: Results) -> dict[str, Style]:
    """Hash -> style: one colour and marker per series, black for the baseline."""
    axis = next((each for each in SWEPT if swept(results, each)), SWEPT[0])
    styles: dict[str, Style] = {}
    place = 0
    for each in series_over(results, axis):
        alone = len(each.cells) == 1 and each.cells[0].hash == results.baseline
        style = Style(BASELINE, "o", "-") if alone else _style(place)
        styles |= {cell.hash: style for cell in each.cells}
        place += not alone
    return styles


def _style(place: int) -> Style:
    turn = place // len(COLOURS)
    return Style(
        COLOURS[place % len(COLOURS)], MARKERS[(place + 1) % len(MARKERS)], DASHES[(place + turn + 1) % len(DASHES)]
    )


@contextmanager
def styled() -> Iterator[None]:
    """Within it, figures are drawn and saved in the style of the report."""
    from matplotlib import rc_context

    with rc_context(RC):
        yield


def figure(width: float, height: float) -> Any:
    """An empty figure without a window, sizes in inches; laid out so that nothing overlaps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn


def axis_label(results: Results, measure: MeasureInfo, *, vertical: bool = False) -> str:
    """Name, network where two measures have one name, and direction: "KD  (← better)"."""
    alone = sum(each.name == measure.name for each in results.measures) == 1
    name = measure.name if alone or measure.network is None else f"{measure.name}, {measure.network}"
    if measure.higher_is_better is None:
        return name
    ahead, back = ("↑", "↓") if vertical else ("→", "←")
    words = ("better", ahead) if measure.higher_is_better else (back, "better")
    # Joined by a space at which no line is broken.
    return f"{name}  ({NO_BREAK.join(words)})"


def short(cell: CellResult, letter: str, width: int = 58) -> str:
    """Letter and label; a dagger where the cell is not done."""
    return f"{letter}{'' if cell.status == 'done' else '†'}  {cut(cell.label, width)}"


def cut(text: str, width: int) -> str:
    """A text of at most `width` signs; a longer one keeps both ends, since labels often differ at the end.

    >>> cut("cfg(1.5) | ssg(1.0)", 12)
    'cfg(1… (1.0)'
    """
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    last = (width - 2) // 2
    return f"{text[: width - 2 - last]}… {text[-last:]}"

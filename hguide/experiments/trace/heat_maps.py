"""Heat maps of the guidance signal over the growing image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from hguide.experiments.trace.figure_style import INK, MUTED, STYLE, new_figure
from hguide.experiments.trace.records import StepRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["heat_figure", "upsampled"]

MOST_COLUMNS = 12
HEAT = "inferno"


def upsampled(heat: Float[np.ndarray, "h w"], height: int, width: int) -> Float[np.ndarray, "H W"]:
    """Each pixel takes the value of the token whose cell holds its centre."""
    rows = (np.arange(height) * 2 + 1) * heat.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * heat.shape[1] // (2 * width)
    return heat[rows][:, columns]


def heat_figure(samples: Sequence[Sequence[StepRow]], names: Sequence[str], title: str, subtitle: str) -> Figure | None:
    """Two rows per sample: the picture so far, and |n| of each token over it, each map with its own range.

    Args:
        samples: rows with pictures; others are left out.
        names: of the samples.
        title: heading.
        subtitle: second line.

    Returns:
        The figure; None where no step has a signal.
    """
    import matplotlib

    shown = [(name, _columns(rows)) for name, rows in zip(names, samples, strict=True) if rows[0].picture is not None]
    if not any(row.strength for _, rows in shown for row in rows):
        return None
    across = max(len(rows) for _, rows in shown)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(1.2 + 1.18 * across, 1.15 + 2.62 * len(shown))
        figure.suptitle(f"{title}\n{subtitle}", fontsize=11, color=INK)
        panels = figure.subplots(2 * len(shown), across, squeeze=False)
        for axes in panels.flat:
            axes.set_axis_off()
        for place, (name, rows) in enumerate(shown):
            for column, row in enumerate(rows):
                picture, heat = panels[2 * place, column], panels[2 * place + 1, column]
                picture.imshow(row.picture)
                picture.set_title(_step_title(row), fontsize=8, color=INK, pad=3)
                _overlay(heat, row)
            _row_label(panels[2 * place, 0], name)
            _row_label(panels[2 * place + 1, 0], "guidance")
        colours = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0.0, 1.0), HEAT)
        bar = figure.colorbar(colours, ax=panels, fraction=0.015, pad=0.01, aspect=30)
        bar.set_ticks([0.0, 1.0], labels=["0", "largest"])
        return figure


def _columns(rows: Sequence[StepRow]) -> list[StepRow]:
    """At most `MOST_COLUMNS` steps, evenly over the run, the last one among them."""
    if len(rows) <= MOST_COLUMNS:
        return list(rows)
    return [rows[place] for place in np.linspace(0, len(rows) - 1, MOST_COLUMNS).round().astype(int)]


def _overlay(axes: Axes, row: StepRow) -> None:
    assert row.picture is not None
    axes.imshow(_grey(row.picture), cmap="gray", vmin=0, vmax=255)
    largest = 0.0 if row.heat is None else float(np.nanmax(row.heat))
    if row.heat is None or largest == 0.0:
        reason = "no null\nstream" if row.heat is None else "nothing\nadded"
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 2}
        axes.text(0.5, 0.5, reason, ha="center", va="center", fontsize=7, transform=axes.transAxes, bbox=box)
        return
    over = upsampled(row.heat, *row.picture.shape[:2])
    axes.imshow(np.ma.masked_invalid(over), cmap=HEAT, vmin=0.0, vmax=largest, alpha=0.72, interpolation="nearest")
    # The axes are off, and with them their labels; text stays.
    label: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 7, "color": MUTED}
    axes.text(0.5, -0.04, f"largest {largest:.3g}", transform=axes.transAxes, **label)


def _row_label(axes: Axes, text: str) -> None:
    axes.text(-0.08, 0.5, text, rotation=90, ha="right", va="center", fontsize=8, color=INK, transform=axes.transAxes)


def _step_title(row: StepRow) -> str:
    return f"{row.grid[0]}×{row.grid[1]}" + (f" call {row.call}" if row.call else "")


def _grey(picture: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    return picture @ np.array([0.299, 0.587, 0.114])

"""The measured hierarchy: what tokens say about the low and the high band of the final latent, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hguide.theory.figures.style import COLOURS, GREY, panels
from hguide.theory.token_redundancy import BANDS, ESTIMATORS, Redundancy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {"low": "low band: settled before", "high": "high band: new at this step"}


def figure(rows: Sequence[Redundancy]) -> Figure:
    """Estimates with intervals and shuffled controls.

    Args:
        rows: as `hguide.theory.token_redundancy.measure` returns them.
    """
    drawn, axes = panels(2, 2, (8.2, 5.0), sharex=True)
    guidances = list(dict.fromkeys(row.guidance for row in rows))
    for line, estimator in enumerate(ESTIMATORS):
        for column, band in enumerate(BANDS):
            axis = axes[line, column]
            chosen = [row for row in rows if (row.estimator, row.band) == (estimator, band)]
            for number, guidance in enumerate(guidances):
                _line(axis, [row for row in chosen if row.guidance == guidance], number, len(guidances))
            steps = sorted({(row.step, row.grid) for row in chosen})
            axis.set_xticks([step for step, _ in steps], [f"{h}x{w}" for _, (h, w) in steps])
            axis.set_title(f"{estimator}, {TITLES[band]}", fontsize=10)
            axis.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)
    for axis in axes[:, 0]:
        axis.set_ylabel("mutual information (nats)")
    for axis in axes[1]:
        axis.set_xlabel("grid of the step")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return drawn


def _line(axis: Any, rows: Sequence[Redundancy], number: int, count: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
    shift = 0.12 * (number - (count - 1) / 2.0)
    places = [row.step + shift for row in rows]
    values = [row.nats.estimate for row in rows]
    reach = [row.nats.high - row.nats.estimate for row in rows]
    label = rows[0].guidance
    axis.errorbar(places, values, reach, color=colour, marker="os^D"[number % 4], markersize=4, capsize=2, label=label)
    controls = [row.control for row in rows]
    axis.plot(places, controls, color=colour, linestyle=":", marker="x", markersize=4, label=f"{label}, shuffled")

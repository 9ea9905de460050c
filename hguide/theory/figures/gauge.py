"""Which methods are gauge invariant: what constants per token change in the guided probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hguide.guidance import registry
from hguide.theory.figures.style import BLUE, GREEN, GREY, RED, panels
from hguide.theory.gauge import TOLERANCE, gauge_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOOR = 1e-17


def figure() -> Figure:
    """Every registered method in its gauges, its largest variant each."""
    rows = []
    for name in registry.names():
        worst: dict[str, tuple[float, str]] = {}
        for row in gauge_table([name]):
            worst[row.gauge] = max(worst.get(row.gauge, (0.0, "")), (row.error, row.ground))
        rows += [(f"{name}, {gauge}" if gauge else name, *found) for gauge, found in worst.items()]
    drawn, ((axis,),) = panels(1, 1, (7.0, 0.19 * len(rows) + 1.2))
    kinds = {
        "linear: every single constant": ("invariant, by linearity", BLUE, "o"),
        "random constants": ("invariant, not linear", GREEN, "^"),
        "counterexample": ("not invariant", RED, "X"),
    }
    for ground, (label, colour, marker) in kinds.items():
        places = [place for place, row in enumerate(rows) if row[2] == ground]
        sizes = [max(rows[place][1], FLOOR) for place in places]
        axis.plot(sizes, places, color=colour, marker=marker, linestyle="", label=label)
    axis.axvline(TOLERANCE, color=GREY, linestyle=":")
    axis.set_xscale("log")
    axis.set_yticks(range(len(rows)), [row[0] for row in rows])
    axis.invert_yaxis()
    axis.grid(axis="y", color="#E5E5E5", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_xlabel("largest change of a guided probability, worst variant (1e-17: none)")
    axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3)
    return drawn

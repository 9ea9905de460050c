"""What the literal gain of algorithm 1 does to the coarse part of the logits."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hguide.theory.figures.style import COLOURS, GREY, panels
from hguide.theory.leakage import literal_low_gain
from hguide.theory.published_grids import SCHEDULES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure() -> Figure:
    """Factor on low frequencies that a step repeats, at beta_k = 1 - k/K; 1 with the amplitude gain."""
    drawn, ((axis,),) = panels(1, 1, (6.4, 3.6))
    axis.axhline(1.0, color=GREY, linewidth=1, label="amplitude gain: left alone")
    for (name, grids), colour, marker in zip(SCHEDULES.items(), COLOURS, "os^D", strict=False):
        steps = range(1, len(grids))
        gains = [literal_low_gain(*pair, 1.0 - k / len(grids)) for k, pair in zip(steps, pairwise(grids), strict=True)]
        axis.plot(steps, gains, color=colour, marker=marker, markersize=4, label=f"{name}, literal gain")
    axis.set_xlabel("step k (from 0)")
    axis.set_ylabel("factor on the coarse logits")
    axis.set_title("SSG at strength 1 sharpens what the step repeats", fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    return drawn

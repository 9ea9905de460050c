"""Parseval's identity per transform: how far the energy of the coefficients may lie from that of the map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hguide.theory.bands import Transform, frame_bounds
from hguide.theory.figures.style import BLUE, GREY, RED, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CASES = (
    Transform("dct"),
    Transform("dft"),
    *(Transform(name, mode) for name in ("haar", "db2", "bior2.2") for mode in ("periodization", "symmetric")),
    Transform("haar", "symmetric", 2),
)


def figure() -> Figure:
    """Least and largest |W x|^2 / |x|^2 of an axis of 16 and of 13."""
    drawn, ((axis,),) = panels(1, 1, (7.0, 3.6))
    axis.axvline(1.0, color=GREY, linewidth=1, zorder=0)
    for shift, size, colour, marker in ((-0.15, 16, BLUE, "o"), (0.15, 13, RED, "s")):
        for place, case in enumerate(CASES):
            low, high = frame_bounds(case, size)
            label = f"axis of {size}" if place == 0 else None
            axis.plot([low, high], [place + shift] * 2, color=colour, marker=marker, markersize=5, label=label)
    axis.set_yticks(range(len(CASES)), [str(case) for case in CASES])
    axis.invert_yaxis()
    axis.set_xlabel("energy of the coefficients / energy of the map, over all maps")
    axis.set_title("A point at 1 is orthonormal (Parseval); a bar is not")
    axis.legend(frameon=False, fontsize=8)
    return drawn

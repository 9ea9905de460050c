"""Leakage of the priors of SSG's table 5 beside their FID: does the one order the other?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hguide.theory.figures.leakage import PARTS
from hguide.theory.figures.style import panels
from hguide.theory.prior_order import TABLE_5, predicted_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure() -> Figure:
    """Mean leakage over VAR-256's steps, for both gains and both spectra; bars that fall to the right explain it."""
    drawn, axes = panels(1, 4, (11.0, 3.4), sharex=True)
    settings = [(gain, flat) for gain in ("literal", "amplitude") for flat in (False, True)]
    for axis, (gain, flat) in zip(axes[0], settings, strict=True):
        bottom = [0.0] * len(TABLE_5)
        for part, colour in PARTS:
            values = list(predicted_order(part, gain, flat).values.values())  # type: ignore[arg-type]
            axis.bar(range(len(TABLE_5)), values, bottom=bottom, color=colour, label=part)
            bottom = [low + value for low, value in zip(bottom, values, strict=True)]
        agree = len(predicted_order("total", gain, flat).agree)  # type: ignore[arg-type]
        spectrum = "flat spectrum" if flat else "1/f² spectrum"
        axis.set_title(f"{gain} gain, {spectrum}\n{agree} of 6 pairs as in table 5", fontsize=10)
        labels = [f"{name}\n{fid:.2f}" for name, fid in TABLE_5.items()]
        axis.set_xticks(range(len(TABLE_5)), labels, fontsize=8)
    axes[0, 0].set_ylabel("total leakage, mean over the steps")
    axes[0, 0].legend(frameon=False, fontsize=8)
    drawn.supxlabel("prior and its FID in table 5 (without SSG: 3.42), worst first", fontsize=9)
    return drawn

"""Limits of IGG's diagnostics and of IGG's rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hguide.theory.dynamics import divergence, evenness
from hguide.theory.dynamics_limits import distance_from_cfg, distance_from_mean, evenness_under_shift, peaked_signal
from hguide.theory.figures.style import BLUE, GREY, RED, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure() -> Figure:
    """Both diagnostics of a peak that narrows; evenness under a constant; IGG between the mean and CFG."""
    drawn, ((left, middle, right),) = panels(1, 3, (11.0, 3.4))
    widths = np.linspace(0.0, 40.0, 40)
    even, narrow = peaked_signal(8, 0.0), [peaked_signal(8, float(width)) for width in widths]
    left.plot(widths, [float(evenness(each)) for each in narrow], color=BLUE, label="evenness")
    apart = [float(divergence(each, even)) for each in narrow]
    left.plot(widths, apart, color=RED, linestyle="--", label="divergence from even")
    left.set_xlabel("sharpness of one peak on 8x8 tokens")
    left.set_ylabel("evenness; divergence (bits)")
    left.set_ylim(0.0, 1.05)
    left.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    constants = np.logspace(-2, 3, 30)
    middle.plot(constants, [evenness_under_shift(float(c)) for c in constants], color=BLUE, label="with the constant")
    middle.axhline(evenness_under_shift(0.0), color=GREY, linestyle=":", label="the same signal as it is")
    middle.set_xscale("log")
    middle.set_ylim(0.0, 1.05)
    middle.set_xlabel("constant added to the logits of all tokens")
    middle.set_ylabel("evenness")
    middle.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    spreads = np.logspace(-2.5, 0.3, 24)
    right.plot(spreads, [distance_from_cfg(float(s)) for s in spreads], color=BLUE, label="|g - n| / |n|: from CFG")
    right.plot(
        spreads,
        [min(2.0, distance_from_mean(float(s))) for s in spreads],
        color=RED,
        linestyle="--",
        label="|g - mean| / |mean|: from the mean",
    )
    right.set_xscale("log")
    right.set_ylim(0.0, 1.5)
    right.set_xlabel("size of independent entries of n, v = 4096")
    right.set_ylabel("relative distance of IGG's g")
    right.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return drawn

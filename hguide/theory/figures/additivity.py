"""The error of the additive bottleneck against the dependence of the bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hguide.theory.band_systems import coupled_bands, filtered_signals, signals, token_channel
from hguide.theory.figures.style import BLUE, GREEN, GREY, PURPLE, RED, panels
from hguide.theory.information_bottleneck import additivity_gap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOKENS = {
    "separate": (BLUE, "-", "reads each band"),
    "low": (GREEN, "--", "reads the low band"),
    "sum": (RED, ":", "reads their sum"),
}


def figure() -> Figure:
    """Three tokens on two bands of three values; tokens of growing noise on DCT bands of three pixels."""
    drawn, ((left, right),) = panels(1, 2, (9.0, 3.6), sharey=True)
    for token, (colour, line, label) in TOKENS.items():
        systems = [coupled_bands(float(dependence), token) for dependence in np.linspace(0.0, 1.0, 25)]
        dependence = [system.information("low", "high") for system in systems]
        gaps = [additivity_gap(system) for system in systems]
        left.plot(dependence, gaps, color=colour, linestyle=line, label=f"token {label}")
    left.plot([0.0, dependence[-1]], [0.0, -dependence[-1]], color=GREY, linewidth=1, label="-I(low; high), the bound")
    values = (0.0, 1.0, 2.0)
    places = signals(values, 3)
    for noise, colour, marker in ((0.3, BLUE, "o"), (0.6, PURPLE, "s"), (1.2, GREEN, "^")):
        channel = token_channel(places, places[::4], noise)
        bands = [filtered_signals(values, 3, 1, float(coupling)) for coupling in np.linspace(0.0, 4.0, 9)]
        systems = [system.with_channel("z", "x", channel) for system in bands]
        dependence = [system.information("low", "high") for system in systems]
        gaps = [additivity_gap(system) for system in systems]
        right.plot(dependence, gaps, color=colour, marker=marker, markersize=4, label=f"noise {noise}")
    left.set_ylabel("I(z; high | low) - I(z; high) (nats)")
    left.set_title("two bands of three values")
    right.set_title("DCT bands of three pixels, smooth signals at the left")
    for axis in (left, right):
        axis.axhline(0.0, color=GREY, linewidth=1, zorder=0)
        axis.set_xlabel("dependence of the bands, I(low; high) (nats)")
        axis.legend(frameon=False, fontsize=8)
    return drawn

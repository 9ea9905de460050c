"""What SSG does to the tokens of the bundled model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hguide.guidance import CFG, SSG
from hguide.load import load
from hguide.theory.effect_on_model import effect_on_model
from hguide.theory.figures.style import BLACK, BLUE, GREY, RED, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure() -> Figure:
    """`cfg(3.0) | ssg(0.5)` on `landuse-var`: entropy, exact and by series; how much of the step is a temperature."""
    drawn, ((left, right),) = panels(1, 2, (9.0, 3.6))
    effects = effect_on_model(load("landuse-var"), [0, 3, 6, 9], range(4), SSG(0.5), CFG(3.0))
    steps = [effect.index + 1 for effect in effects]
    left.plot(steps, [effect.change for effect in effects], color=BLACK, marker="o", label="exact")
    left.plot(steps, [effect.first for effect in effects], color=RED, linestyle="--", label="order 1")
    left.plot(steps, [effect.second for effect in effects], color=BLUE, linestyle="-.", label="order 2")
    left.axhline(0.0, color=GREY, linewidth=1, zorder=0)
    left.set_ylabel("mean change of entropy (nats)")
    low, middle, high = zip(*(effect.share for effect in effects), strict=True)
    right.fill_between(steps, low, high, color=BLUE, alpha=0.25, linewidth=0, label="half of the tokens")
    right.plot(steps, middle, color=BLUE, marker="o", label="median share of a temperature")
    rising = [effect.rising for effect in effects]
    right.plot(steps, rising, color=RED, linestyle="--", marker="s", label="part of tokens whose entropy rises")
    right.set_ylim(0.0, 1.0)
    for axis in (left, right):
        axis.set_xlabel("step k")
        axis.set_xticks(steps)
        axis.legend(frameon=False, fontsize=8)
    return drawn

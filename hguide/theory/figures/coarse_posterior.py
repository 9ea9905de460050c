"""How near each prior of table 5 comes to the exact coarse posterior, step by step, on Gaussian pictures."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hguide.theory.coarse_posterior import NOISES, PosteriorGap, posterior_gap
from hguide.theory.figures.style import BLACK, BLUE, GREEN, PURPLE, RED, panels
from hguide.theory.published_grids import SCHEDULES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = (
    ("nearest", "nearest", RED, "s", ":"),
    ("linear", "bilinear", PURPLE, "^", "-."),
    ("zero high, literal gain", "dse(high=zero)", GREEN, "x", "--"),
    ("DSE, literal gain", "dse", BLUE, "o", "-"),
    ("DSE, amplitude gain", "dse(gain=amplitude)", BLACK, "D", ":"),
)
IDEAL = "dse(high=zero, gain=amplitude)"


def figure() -> Figure:
    """Cosine with the exact contrast for sure and for vague tokens; the gain that fits the posterior best."""
    drawn, ((sure, vague, gains),) = panels(1, 3, (11.0, 3.8))
    pairs = list(pairwise(SCHEDULES["VAR-256"]))
    for axis, noise, marker in ((sure, NOISES[0], "s"), (vague, NOISES[1], "^")):
        found = {text: [posterior_gap(text, *pair, noise) for pair in pairs] for text in _texts()}
        _alignments(axis, found)
        axis.set_title(f"tokens read with noise {noise:g}", fontsize=10)
        best = [each.best_gain for each in found[IDEAL]]
        gains.plot(range(len(pairs)), best, color=BLACK, marker=marker, markersize=4, label=f"noise {noise:g}")
    sure.set_ylabel("cosine with the exact contrast")
    gains.plot(
        range(len(pairs)),
        [math.sqrt(h * w / (height * width)) for (h, w), (height, width) in pairs],
        color=BLUE,
        linestyle="--",
        label="literal gain, sqrt(hw/HW)",
    )
    gains.set_ylim(0.0, 1.05)
    gains.set_ylabel("amplitude of the best prior")
    gains.set_title("gain that fits the posterior best", fontsize=10)
    for axis in (sure, vague, gains):
        axis.set_xticks(range(len(pairs)), [height for _, (height, _) in pairs])
        axis.set_xlabel("side of the step's grid, VAR-256")
    gains.legend(frameon=False, fontsize=8, loc="lower right")
    drawn.legend(*sure.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    return drawn


def _texts() -> list[str]:
    return [*(text for _, text, *_ in LINES), IDEAL]


def _alignments(axis: Any, found: dict[str, list[PosteriorGap]]) -> None:
    for name, text, colour, marker, line in LINES:
        values = [each.alignment for each in found[text]]
        axis.plot(values, color=colour, marker=marker, markersize=4, linestyle=line, label=name)
    axis.set_ylim(0.0, 1.05)

"""Curves of a trace: one panel per quantity over the steps, mean and spread over the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hguide.experiments.trace.figure_style import INK, LINES, MUTED, STYLE, empty, new_figure
from hguide.experiments.trace.records import TraceOptions
from hguide.experiments.trace.residual import band_names
from hguide.experiments.trace.signal import SIGNALS
from hguide.experiments.trace.summary import StepSummary
from hguide.generator import Binary, Categorical

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves_figure"]

NOTHING_ADDED = "nothing to show:\nthe guidance adds nothing"
NO_CONTRAST = "nothing to show:\nno step has a null stream"
AGAINST = {"previous": "the step before", "final": "the last step", "uniform": "an even spread"}
BAND_COLOURS = ("#08306b", "#2a6fb0", "#7fb2dc", "#cfe3f3", "#f1c9a5", "#d98c5f", "#a8432f", "#5d1a12")


def curves_figure(
    steps: Sequence[StepSummary], options: TraceOptions, channels: Categorical | Binary, title: str, subtitle: str
) -> Figure:
    """Six panels: size, evenness and divergence of the signal; entropy, candidates, and energy of the residual.

    Args:
        steps: from `summarise`.
        options: of the tracer.
        channels: of the generator.
        title: heading.
        subtitle: second line.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = new_figure(12.5, 7.4)
        figure.suptitle(f"{title}\n{subtitle}", fontsize=11, color=INK)
        panels = figure.subplots(2, 3)
        none = NOTHING_ADDED if options.signal == "added" else NO_CONTRAST
        size = f"size of the guidance signal\n({SIGNALS[options.signal]})"
        _signal(panels[0, 0], steps, "strength", size, "|n| per token", none)
        even = "evenness of the signal\nover the tokens (Pielou)"
        _signal(panels[0, 1], steps, "evenness", even, "1: the same on all", none)
        against = f"divergence of the signal\nfrom {AGAINST[options.reference]} (Jensen-Shannon)"
        _signal(panels[0, 2], steps, "divergence", against, "bits", none)
        _entropies(panels[1, 0], steps)
        _kept(panels[1, 1], steps, channels)
        _bands(panels[1, 2], steps, options.edges)
        for axes in panels.flat:
            axes.spines[["top", "right"]].set_visible(False)
        return figure


def _signal(axes: Axes, steps: Sequence[StepSummary], name: str, heading: str, unit: str, none: str) -> None:
    axes.set_title(heading)
    if not any(_size(step) for step in steps):
        empty(axes, none)
        return
    if all(step.numbers[name] is None for step in steps):
        empty(axes, "nothing to show:\nnot defined at any step")
        return
    _curve(axes, steps, name, LINES[0])
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0.0)
    if name == "evenness":
        # Near 1 everywhere the differences would not be seen on an axis from 0.
        least = min(each.low for step in steps if (each := step.numbers[name]) is not None)
        axes.set_ylim(max(0.0, 1.0 - 1.25 * max(1.0 - least, 1e-3)), 1.0)
    _step_axis(axes, steps)


def _size(step: StepSummary) -> float:
    strength = step.numbers["strength"]
    return 0.0 if strength is None else strength.mean


def _entropies(axes: Axes, steps: Sequence[StepSummary]) -> None:
    axes.set_title("entropy of a token")
    named = (("entropy_given", "given condition"), ("entropy_guided", "guided"), ("entropy_drawn", "drawn from"))
    for (name, label), colour in zip(named, (MUTED, LINES[0], LINES[1]), strict=True):
        _curve(axes, steps, name, colour, label)
    axes.set_ylabel("nats")
    axes.set_ylim(bottom=0.0)
    axes.legend(frameon=False, fontsize=8)
    _step_axis(axes, steps)


def _kept(axes: Axes, steps: Sequence[StepSummary], channels: Categorical | Binary) -> None:
    _curve(axes, steps, "kept", LINES[0])
    if isinstance(channels, Binary):
        axes.set_title("values left of a bit after top-p")
        axes.set_ylabel("values")
        axes.set_ylim(0.95, 2.05)
    else:
        axes.set_title("candidates after top-k and top-p")
        axes.set_ylabel(f"tokens of {channels.size}")
        axes.set_yscale("log")
        axes.set_ylim(0.9, 1.3 * channels.size)
        axes.axhline(channels.size, color=MUTED, linewidth=0.8, linestyle=":")
    _step_axis(axes, steps)


def _bands(axes: Axes, steps: Sequence[StepSummary], edges: Sequence[float]) -> None:
    axes.set_title("semantic residual by spatial frequency")
    known = [(place, step) for place, step in enumerate(steps) if step.numbers["residual"] is not None]
    if not known:
        empty(axes, "nothing to show:\nno step has a map before it")
        return
    places = [place for place, _ in known]
    bottom = [0.0] * len(known)
    for band, name in enumerate(band_names(edges)):
        heights = [_band_share(step, band) for _, step in known]
        colour = BAND_COLOURS[band % len(BAND_COLOURS)]
        axes.bar(places, heights, bottom=bottom, width=0.75, color=colour, label=name, linewidth=0)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    parts = [(place, step) for place, step in known if step.bands is None]
    if parts:
        axes.bar(
            [place for place, _ in parts],
            [_share(step) for _, step in parts],
            width=0.75,
            color="#d8d8d8",
            label="parts of a map: no bands",
        )
    shares = [(_share(step), *_range(step)) for _, step in known]
    reach = [[mean - low for mean, low, _ in shares], [high - mean for mean, _, high in shares]]
    axes.errorbar(places, [mean for mean, _, _ in shares], np.maximum(reach, 0.0), fmt="none", ecolor=INK, elinewidth=1)
    axes.set_ylabel("energy relative to that of the logits")
    axes.set_ylim(0.0, 1.5 * max(max(high for _, _, high in shares), 1e-6))
    axes.legend(title="part of the Nyquist frequency", frameon=False, fontsize=8, title_fontsize=8, ncols=2)
    _step_axis(axes, steps)


def _share(step: StepSummary) -> float:
    share = step.numbers["share"]
    return 0.0 if share is None else share.mean


def _range(step: StepSummary) -> tuple[float, float]:
    share = step.numbers["share"]
    return (0.0, 0.0) if share is None else (share.low, share.high)


def _band_share(step: StepSummary, band: int) -> float:
    """The band's part of the residual, in units of the energy of the logits."""
    if step.bands is None:
        return 0.0
    whole = sum(each.mean for each in step.bands)
    return _share(step) * step.bands[band].mean / whole if whole > 0.0 else 0.0


def _curve(axes: Axes, steps: Sequence[StepSummary], name: str, colour: str, label: str | None = None) -> None:
    """Mean with markers, gaps where nothing is defined, and the range from the 10 % to the 90 % quantile."""
    nan = float("nan")
    found = [step.numbers[name] for step in steps]
    places = range(len(steps))
    low = [nan if each is None else each.low for each in found]
    high = [nan if each is None else each.high for each in found]
    axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    mean = [nan if each is None else each.mean for each in found]
    axes.plot(places, mean, color=colour, linewidth=1.6, marker="o", markersize=3.5, label=label)


def _step_axis(axes: Axes, steps: Sequence[StepSummary]) -> None:
    every = -(-len(steps) // 12)
    places = list(range(0, len(steps), every))
    axes.set_xticks(places, [step_name(steps[place].grid, steps[place].call, steps) for place in places])
    axes.set_xlim(-0.6, len(steps) - 0.4)
    axes.set_xlabel("grid of the step")


def step_name(grid: tuple[int, int], call: int, steps: Sequence[StepSummary]) -> str:
    """The grid of a step, with the call where grids come more than once."""
    side = str(grid[0]) if grid[0] == grid[1] else f"{grid[0]}×{grid[1]}"
    name = f"{side}×{side}" if grid[0] == grid[1] and len(steps) <= 8 else side
    return f"{name}\ncall {call}" if any(step.call for step in steps) else name

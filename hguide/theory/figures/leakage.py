"""One figure per prior: its transfer matrix, its gain by frequency, and its leakage at every step of the schedules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hguide.guidance import parse_prior
from hguide.priors import SeparablePrior
from hguide.theory.figures.style import BLUE, GREEN, GREY, RED, figure_of
from hguide.theory.leakage import PRIORS, band_gain, energy_split, schedule_leakage, transfer
from hguide.theory.published_grids import SCHEDULES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOURCE, TARGET = 13, 16
PARTS = (("attenuation", BLUE), ("crosstalk", GREEN), ("spurious", RED))


def nearest() -> Figure:
    """Of the nearest prior."""
    return draw("nearest")


def bilinear() -> Figure:
    """Of the bilinear prior, the paper's "linear"."""
    return draw("bilinear")


def bicubic() -> Figure:
    """Of the bicubic prior."""
    return draw("bicubic")


def lanczos() -> Figure:
    """Of the Lanczos prior."""
    return draw("lanczos")


def area() -> Figure:
    """Of the area prior."""
    return draw("area")


def dse_literal() -> Figure:
    """Of DSE with the literal gain."""
    return draw("DSE, literal gain")


def dse_amplitude() -> Figure:
    """Of DSE that keeps amplitudes."""
    return draw("DSE, amplitude gain")


def dse_zero() -> Figure:
    """Of DSE with a zero high band and the literal gain."""
    return draw("DSE, zero high, literal")


def dse_dft() -> Figure:
    """Of DSE in the DFT."""
    return draw("DSE in the DFT")


def dse_haar() -> Figure:
    """Of DSE in haar wavelets."""
    return draw("DSE in haar wavelets")


def draw(name: str) -> Figure:
    """The figure of a prior of `hguide.theory.leakage.PRIORS`."""
    prior = parse_prior(PRIORS[name])
    assert isinstance(prior, SeparablePrior)
    drawn = figure_of((10.0, 5.6))
    parts: Any = drawn.subfigures(2, 1, height_ratios=(1.25, 1.0))
    upper, lower = parts
    (left, right), steps = upper.subplots(1, 2), lower.subplots(1, 4, sharey=True)
    _transfer(upper, left, prior)
    _gains(right, prior)
    for axis, (schedule, grids) in zip(steps, SCHEDULES.items(), strict=True):
        _steps(axis, prior, schedule, grids)
    for axis in (right, *steps):
        axis.spines[["top", "right"]].set_visible(False)
    steps[0].set_ylim(0.0, max(steps[0].get_ylim()[1], 0.01))
    steps[0].set_ylabel("error energy / energy", fontsize=9)
    lower.legend(*steps[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    text = PRIORS[name]
    drawn.suptitle(name if name == text else f"{name}: {text}", fontsize=11)
    return drawn


def _transfer(drawn: Any, axis: Any, prior: SeparablePrior) -> None:
    from matplotlib.colors import LogNorm

    source, target = (SOURCE, SOURCE), (TARGET, TARGET)
    size = transfer(prior, source, target)[:, 0, :, 0].abs() * (SOURCE / TARGET)
    image = axis.imshow(
        size.clamp_min(1e-3).numpy(), norm=LogNorm(1e-3, 1.0), cmap="cividis", origin="lower", aspect="auto"
    )
    axis.axhline(SOURCE - 0.5, color="white", linestyle="--", linewidth=1.2)
    axis.text(0, SOURCE - 0.2, "above: spurious", color="white", fontsize=8, va="bottom")
    axis.set_xlabel(f"frequency in the source, {SOURCE}x{SOURCE}", fontsize=9)
    axis.set_ylabel(f"frequency in the target, {TARGET}x{TARGET}", fontsize=9)
    axis.set_xticks(range(0, SOURCE, 2))
    axis.set_yticks(range(0, TARGET, 3))
    axis.set_title("transfer of vertical frequencies (1: amplitude kept)", fontsize=10)
    drawn.colorbar(image, ax=axis, label="|amplitude|")


def _gains(axis: Any, prior: SeparablePrior) -> None:
    source, target = (SOURCE, SOURCE), (TARGET, TARGET)
    split = energy_split(prior, source, target)
    axis.axhline(1.0, color=GREY, linewidth=1, zorder=0)
    lines = (
        ("gain of the frequency itself", band_gain(prior, source, target), BLUE, "o"),
        ("crosstalk: other low frequencies", split.crosstalk.sqrt(), GREEN, "^"),
        ("spurious: above the source's band", split.spurious.sqrt(), RED, "s"),
    )
    for label, values, colour, marker in lines:
        axis.plot(range(SOURCE), values[:, 0].tolist(), color=colour, marker=marker, markersize=4, label=label)
    axis.set_ylim(-0.05, 1.5)
    axis.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0])
    axis.set_xlabel(f"frequency in the source (half cycles per map), {SOURCE} -> {TARGET}", fontsize=9)
    axis.set_ylabel("amplitude", fontsize=9)
    axis.legend(frameon=False, fontsize=8, loc="upper left")


def _steps(axis: Any, prior: SeparablePrior, schedule: str, grids: Any) -> None:
    rows = schedule_leakage(prior, grids)
    bottom = [0.0] * len(rows)
    for part, colour in PARTS:
        values = [getattr(row, part) for row in rows]
        axis.bar(range(len(rows)), values, bottom=bottom, color=colour, label=part)
        bottom = [low + value for low, value in zip(bottom, values, strict=True)]
    every = math.ceil(len(rows) / 8)
    axis.set_xticks(range(0, len(rows), every), [row.target[0] for row in rows[::every]])
    axis.set_title(schedule, fontsize=10)
    axis.tick_params(labelsize=8)
    axis.set_xlabel("side of the step's grid", fontsize=9)

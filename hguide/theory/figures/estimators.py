"""The estimators of mutual information on distributions whose answer is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hguide.theory.figures.style import BLACK, BLUE, RED, panels
from hguide.theory.mutual_information import gaussian, ksg, miller_madow, plug_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure() -> Figure:
    """k-NN on correlated Gaussians; plug-in with and without correction on eight noisy classes."""
    drawn, ((left, right),) = panels(1, 2, (9.0, 3.6))
    draw = np.random.default_rng(0)
    correlations = np.linspace(0.0, 0.95, 12)
    fine = np.linspace(0.0, 0.96, 100)
    left.plot(fine, [gaussian(rho) for rho in fine], color=BLACK, label="exact, -ln(1 - ρ²)/2")
    for count, colour, marker in ((200, RED, "s"), (2000, BLUE, "o")):
        found = [_gaussian_estimate(rho, count, draw) for rho in correlations]
        left.plot(correlations, found, color=colour, marker=marker, linestyle="", label=f"k-NN, {count} samples")
    left.set_xlabel("correlation ρ of two Gaussians")
    left.set_ylabel("mutual information (nats)")
    left.legend(frameon=False, fontsize=8)
    counts = [50, 100, 200, 400, 800, 1600, 3200, 6400]
    samples = [_classes(count, draw) for count in counts]
    right.axhline(_exact_classes(), color=BLACK, label="exact")
    for name, estimator, colour, marker in (("plug-in", plug_in, RED, "s"), ("Miller-Madow", miller_madow, BLUE, "o")):
        found = [float(np.mean([estimator(x, y) for x, y in repeats])) for repeats in samples]
        right.plot(counts, found, color=colour, marker=marker, label=f"{name}, mean of 20")
    right.set_xscale("log")
    right.set_xlabel("samples of two variables of 8 classes")
    right.set_ylabel("mutual information (nats)")
    right.legend(frameon=False, fontsize=8)
    return drawn


def _gaussian_estimate(correlation: float, count: int, draw: np.random.Generator) -> float:
    x, noise = draw.standard_normal((2, count, 1))
    return ksg(x, correlation * x + np.sqrt(1.0 - correlation**2) * noise)


def _classes(count: int, draw: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """y is x half of the time, and any class otherwise."""
    pairs = []
    for _ in range(20):
        x, other = draw.integers(0, 8, (2, count))
        pairs.append((x, np.where(draw.random(count) < 0.5, x, other)))
    return pairs


def _exact_classes() -> float:
    joint = (0.5 * np.eye(8) + 0.5 / 8.0) / 8.0
    return float((joint * np.log(joint * 64.0)).sum())

"""Entropy and divergence against beta, exact and by series."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hguide.theory.figures.style import BLACK, BLUE, GREEN, RED, panels
from hguide.theory.fisher import divergence
from hguide.theory.random_tokens import random_tokens
from hguide.theory.sampling_effect import divergence_series, entropy_change, entropy_series

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure() -> Figure:
    """One token of 64 channels whose contrast agrees with its logits in part."""
    drawn, ((left, right),) = panels(1, 2, (9.0, 3.6))
    logits, other = random_tokens(1, 64)
    contrast = 0.5 * logits + other
    betas = np.linspace(0.0, 1.0, 41)
    left.plot(betas, [float(entropy_change(logits, contrast, b)) for b in betas], color=BLACK, label="exact")
    for order, colour, line in ((1, RED, "--"), (2, BLUE, "-.")):
        series = [float(entropy_series(logits, contrast, b, order)) for b in betas]
        left.plot(betas, series, color=colour, linestyle=line, label=f"order {order}")
    left.set_ylabel("change of entropy (nats)")
    exactly = [float(divergence(logits + b * contrast, logits)) for b in betas]
    right.plot(betas, exactly, color=BLACK, label="KL(q' || q), exact")
    for order, colour, line in ((2, RED, "--"), (3, GREEN, ":")):
        series = [float(divergence_series(logits, contrast, b, order=order)) for b in betas]
        right.plot(betas, series, color=colour, linestyle=line, label=f"order {order}")
    right.set_ylim(-0.1 * max(exactly), 2.0 * max(exactly))
    right.set_ylabel("divergence from the base (nats)")
    for axis in (left, right):
        axis.set_xlabel("β")
        axis.legend(frameon=False, fontsize=8)
    return drawn

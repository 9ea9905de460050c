"""The gradient printed in appendix C.1 beside the gradient of its objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hguide.theory.figures.style import BLUE, GREEN, RED, panels
from hguide.theory.gradient_claim import (
    alignment,
    anchored_gradient,
    anchored_natural_gradient,
    contrastive_gradient,
    printed_gradient,
)
from hguide.theory.random_tokens import random_tokens
from hguide.theory.sampling_effect import entropy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure() -> Figure:
    """Mean cosine with s D over tokens that grow surer."""
    drawn, ((axis,),) = panels(1, 1, (6.5, 3.8))
    uncertainty, cosines = [], []
    for spread in np.linspace(0.05, 6.0, 24):
        logits, contrast = random_tokens(400, 64, spread=float(spread))
        printed = printed_gradient(contrast, 1.0)
        uncertainty.append(float(entropy(logits).mean()))
        found = (
            contrastive_gradient(logits, contrast, 1.0),
            anchored_gradient(logits, contrast, 1.0),
            anchored_natural_gradient(contrast, 1.0),
        )
        cosines.append([float(alignment(each, printed).mean()) for each in found])
    styles = (
        (RED, "-", "gradient of <q', l + s D>"),
        (BLUE, "--", "gradient of s <q', D> - KL(q' || q)"),
        (GREEN, "-.", "natural gradient of the latter"),
    )
    for column, (colour, line, label) in zip(np.array(cosines).T, styles, strict=True):
        axis.plot(uncertainty, column, color=colour, linestyle=line, label=label)
    axis.set_ylim(0.0, 1.05)
    axis.set_xlabel("entropy of the token (nats), 64 channels")
    axis.set_ylabel("mean cosine with s D, as printed")
    axis.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.05))
    return drawn

"""The gauge of logits: which constant is taken off each token before anything that is not linear reads them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import near_matches

__all__ = ["GAUGES", "fix_gauge", "gauge_problems"]

GAUGES = ("raw", "centred", "log_softmax")


def fix_gauge(logits: Float[Tensor, "*place v"], gauge: str) -> Float[Tensor, "*place v"]:
    """Logits less a constant per token, which their softmax does not see.

    Args:
        logits: channel last; returned as they are for "raw".
        gauge: "raw" (nothing is taken off), "centred" (the mean over the channels), or "log_softmax" (the log of the
            sum of exponentials, so that log probabilities remain).

    Returns:
        New logits, or the given ones for "raw".
    """
    if gauge == "raw":
        return logits
    if gauge == "centred":
        return logits - logits.mean(-1, keepdim=True)
    return torch.log_softmax(logits, -1)


def gauge_problems(gauge: str) -> list[str]:
    """What is wrong with the name of a gauge, in at most one line."""
    return [] if gauge in GAUGES else [f"unknown gauge {gauge!r}: {near_matches(gauge, GAUGES)}"]

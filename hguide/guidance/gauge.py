"""The gauge of logits: which constant is taken off each token before anything that is not linear reads them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import near_matches

__all__ = ["GAUGES", "fix_gauge", "gauge_problems", "gauge_shift"]

GAUGES = ("raw", "centred", "log_softmax")


def gauge_shift(logits: Float[Tensor, "*place v"], gauge: str) -> Float[Tensor, "*place 1"]:
    """What a gauge takes off each token, which the softmax over its channels does not see.

    Args:
        logits: channel last.
        gauge: "raw" (nothing), "centred" (the mean over the channels), or "log_softmax" (the log of the sum of
            exponentials, so that log probabilities remain).
    """
    if gauge == "raw":
        return torch.zeros_like(logits[..., :1])
    if gauge == "centred":
        return logits.mean(-1, keepdim=True)
    return logits.logsumexp(-1, keepdim=True)


def fix_gauge(logits: Float[Tensor, "*place v"], gauge: str) -> Float[Tensor, "*place v"]:
    """The logits less their `gauge_shift`: new ones, or the given ones for "raw"."""
    return logits if gauge == "raw" else logits - gauge_shift(logits, gauge)


def gauge_problems(gauge: str) -> list[str]:
    """What is wrong with the name of a gauge, in at most one line."""
    return [] if gauge in GAUGES else [f"unknown gauge {gauge!r}: {near_matches(gauge, GAUGES)}"]

"""From logits to the log-probabilities that guidance and the reverse process work on."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["LEAST_LOG", "log_probabilities", "normalised", "with_mask_row"]

LEAST_LOG = -70.0
"""The logarithm that stands for probability 0."""


def log_probabilities(logits: Float[Tensor, "*place k"]) -> Float[Tensor, "*place k"]:
    """max(log_softmax(logits), -70): the softmax in float64, the result in float32.

    Args:
        logits: over the codes.
    """
    return logits.double().log_softmax(-1).float().clamp_(LEAST_LOG, 0.0)


def normalised(values: Float[Tensor, "*place k"]) -> Float[Tensor, "*place k"]:
    """Guided log-probabilities of sum 1 again: max(l - logsumexp(l), -70).

    Args:
        values: over the codes.
    """
    return (values - values.logsumexp(-1, keepdim=True)).clamp_(LEAST_LOG, 0.0)


def with_mask_row(log_x0: Float[Tensor, "*place k"]) -> Float[Tensor, "*place c"]:
    """The same with one more channel for the mask, at -70: a clean token is never masked."""
    return F.pad(log_x0, (0, 1), value=LEAST_LOG)

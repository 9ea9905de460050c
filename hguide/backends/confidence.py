"""The probability of drawn tokens, and what SoftCFG makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.errors import StreamError
from hguide.generator import Draw
from hguide.streams import Stream

__all__ = ["needs_confidence", "token_probability", "value_weights", "with_confidence"]


def needs_confidence(streams: Sequence[Stream]) -> bool:
    """Whether any stream reads the probability of the drawn tokens."""
    return any(stream.perturb is not None and stream.perturb.kind == "soft" for stream in streams)


def token_probability(logits: Float[Tensor, "*place v"], tokens: Int[Tensor, "*place"]) -> Float[Tensor, "*place"]:
    """softmax(logits) at the drawn tokens."""
    return (logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)).exp()


def with_confidence(so_far: Tensor | None, draw: Draw) -> Float[Tensor, "b n"]:
    """The probabilities of all tokens so far, with those of a draw behind them.

    Raises:
        StreamError: the draw carries none.
    """
    if draw.confidence is None:
        raise StreamError(
            "a soft stream needs the probability of the drawn tokens, but the draw carries none: "
            "a lender can serve one only beside a soft stream of the main model."
        )
    new = draw.confidence.flatten(1)
    return new if so_far is None else torch.cat([so_far, new], dim=1)


def value_weights(confidence: Float[Tensor, "b n"], step_norm: bool) -> Float[Tensor, "b n"]:
    """SoftCFG's weights of cached values: 1 - p_i, or with step normalisation 1 - p_i / sum_j p_j.

    Args:
        confidence: p_i of the tokens so far.
        step_norm: bound what is taken away in all to 1.

    Source: arXiv 2510.00996 (*second-hand*).
    """
    if step_norm:
        confidence = confidence / confidence.sum(1, keepdim=True).clamp_min(torch.finfo(confidence.dtype).tiny)
    return 1.0 - confidence

"""The purity prior: which masked tokens a network call reveals (arXiv 2205.16007)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hguide.backends.vq_diffusion.log_probabilities import LEAST_LOG

__all__ = ["purity", "revealed", "selection_score", "sharpened"]

TINY = 1e-10


def purity(log_x0: Float[Tensor, "b n c"]) -> Float[Tensor, "b n"]:
    """max_k p(x0 = k) over its largest value in the image.

    Args:
        log_x0: log p(x0 | x_t), filtered.
    """
    largest = log_x0.exp().amax(-1)
    return largest / (largest.amax(-1, keepdim=True) + TINY)


def sharpened(log_x0: Float[Tensor, "b n c"], weight: float) -> Float[Tensor, "b n c"]:
    """max(log softmax((1 + weight purity) log_x0), -70).

    Args:
        log_x0: log p(x0 | x_t), filtered.
        weight: r >= 0; 0 leaves it as it is.
    """
    if weight == 0.0:
        return log_x0
    return ((1.0 + weight * purity(log_x0).unsqueeze(-1)) * log_x0).log_softmax(-1).clamp_(LEAST_LOG, 0.0)


def selection_score(log_x0: Float[Tensor, "b n c"], visible: Bool[Tensor, "b n"], rule: int) -> Float[Tensor, "b n"]:
    """The weight with which a position is chosen: 1 (rule 1) or its purity (rule 2), 0 where it is visible.

    Args:
        log_x0: log p(x0 | x_t), filtered.
        visible: where tokens are known.
        rule: 1 or 2.
    """
    score = purity(log_x0) if rule == 2 else torch.ones_like(log_x0[..., 0])
    return score.masked_fill(visible, 0.0)


def revealed(
    score: Float[Tensor, "b n"], count: int, exponential: Float[Tensor, "b n 1"]
) -> tuple[Bool[Tensor, "b n"], Int[Tensor, "b _"]]:
    """`count` positions drawn without replacement in proportion to the score: those with the largest score / Exp(1).

    Args:
        score: >= 0; a position of score 0 is never chosen, so fewer are where fewer are left.
        count: number of positions.
        exponential: draws of rate 1.

    Returns:
        Where a position is chosen, and the positions in the order of their choice.
    """
    order = (score / exponential.squeeze(-1)).topk(min(count, score.shape[1]), dim=1).indices
    chosen = torch.zeros_like(score, dtype=torch.bool).scatter_(1, order, True)
    return chosen & (score > 0.0), order

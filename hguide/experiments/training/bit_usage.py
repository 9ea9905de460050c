"""How well bits are used: their entropy, as a measure and as a term of a loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["binary_entropy", "bit_usage", "entropy_penalty", "shares_of_ones"]

RARE = 0.05


def binary_entropy(share: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """-p log2 p - (1 - p) log2(1 - p)."""
    # Away from 0 and 1, where the slope is infinite.
    share = share.clamp(1e-6, 1 - 1e-6)
    return -(share * share.log2() + (1 - share) * (1 - share).log2())


def shares_of_ones(bits: Sequence[Int[Tensor, "b _ _ d"]]) -> Float[Tensor, "scales d"]:
    """How often each bit of each scale is 1."""
    return torch.stack([each.float().mean((0, 1, 2)) for each in bits])


def bit_usage(shares: Float[Tensor, "scales d"]) -> dict[str, Tensor]:
    """bit_entropy: mean entropy of a bit, 1 at best; bits_used: share of bits whose rarer value makes 5 % or more."""
    rarer = torch.minimum(shares, 1 - shares)
    return {"bit_entropy": binary_entropy(shares).mean(), "bits_used": (rarer >= RARE).float().mean()}


def entropy_penalty(remainders: Sequence[Float[Tensor, "b d _ _"]]) -> Float[Tensor, ""]:
    """E[H(p)] - H(E[p]) per bit, averaged over bits and scales: -1 where bits are certain one by one and balanced.

    p = sigmoid(4 sqrt(d) r) for a remainder r: the soft choice between the codes +-1/sqrt(d) by their squared distances
    over 1/d.

    Args:
        remainders: what each scale takes the signs of.

    Source: BSQ (arXiv 2406.07548), its entropy term with gamma = 1; applied at every scale here.
    """
    parts = []
    for each in remainders:
        chance = torch.sigmoid(4 * each.shape[1] ** 0.5 * each)
        parts.append(binary_entropy(chance).mean() - binary_entropy(chance.mean((0, 2, 3))).mean())
    return torch.stack(parts).mean()

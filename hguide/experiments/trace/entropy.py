"""How undecided a step is: the entropy of each token's distribution."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.generator import Binary, Categorical

__all__ = ["bit_entropy", "token_entropy"]


def token_entropy(logits: Float[Tensor, "b *place v"], channels: Categorical | Binary) -> Float[Tensor, "b n"]:
    """H_i = -sum_v p_iv ln p_iv of p = softmax(l), in nats; for independent bits the sum over the bits.

    Args:
        logits: channel last; -inf where a token is excluded.
        channels: what they are logits of.
    """
    if isinstance(channels, Binary):
        return bit_entropy(logits).sum(-1).flatten(1)
    return torch.special.entr(logits.float().softmax(-1)).sum(-1).flatten(1)


def bit_entropy(differences: Float[Tensor, "*place bits"]) -> Float[Tensor, "*place bits"]:
    """Entropy of each bit in nats, from its logit difference d = l1 - l0."""
    one = torch.sigmoid(differences.float())
    return torch.special.entr(one) + torch.special.entr(torch.sigmoid(-differences.float()))

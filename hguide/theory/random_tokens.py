"""Random logits and contrasts on which statements are tried."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

__all__ = ["random_tokens"]


def random_tokens(
    tokens: int, channels: int, spread: float = 2.0, seed: int = 0
) -> tuple[Float64[Tensor, "n v"], Float64[Tensor, "n v"]]:
    """Logits with this standard deviation, and contrasts with standard deviation 1: normal, independent.

    Args:
        tokens: n.
        channels: v.
        spread: of the logits; the larger, the surer the tokens.
        seed: of the draw.

    Returns:
        `(n, v)` each, float64 on the CPU.
    """
    draw = torch.Generator().manual_seed(seed)
    logits, contrast = torch.randn(2, tokens, channels, generator=draw, dtype=torch.float64)
    return spread * logits, contrast

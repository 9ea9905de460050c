"""Sinusoidal embedding of a number followed by an MLP: of the level of a scale, and of a diffusion step."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["TimestepEmbedding", "sinusoid"]

CHANNELS = 256
MAX_PERIOD = 10000.0


def sinusoid(numbers: Float[Tensor, " n"], channels: int = CHANNELS) -> Float[Tensor, "n c"]:
    """[cos(t f), sin(t f)] with f_i = exp(-ln(10^4) i / half), i < half = channels / 2.

    Args:
        numbers: t.
        channels: even.
    """
    half = channels // 2
    place = torch.arange(half, dtype=numbers.dtype, device=numbers.device)
    angles = numbers[:, None] * torch.exp(-math.log(MAX_PERIOD) * place / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """Linear(SiLU(Linear(sinusoid(t))))."""

    def __init__(self, width: int) -> None:
        """Make the layer.

        Args:
            width: of the embedding.
        """
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(CHANNELS, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, numbers: Float[Tensor, " n"]) -> Float[Tensor, "n c"]:
        """Embeddings of numbers.

        Args:
            numbers: t, float32 or wider; the sinusoid is computed in their type.
        """
        return self.mlp(sinusoid(numbers).to(next(self.parameters()).dtype))

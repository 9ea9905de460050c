"""The crop of the training pictures that Switti's blocks are told."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["CROP", "FourierEmbedding"]

CROP = (512.0, 512.0, 0.0, 0.0)
"""What the official program says at every resolution: the size of the picture, and the crop's corner."""


class FourierEmbedding(nn.Module):
    """[sin(2 pi x w), cos(2 pi x w)] of each number x, one after another; w is fixed, and part of the weights.

    x w runs to hundreds of turns, which half precision cannot tell apart: w stays float32 there. *Reconstructed*: that
    the official program keeps it so too.
    """

    weight: Tensor

    def __init__(self, channels: int) -> None:
        """Make the embedding.

        Args:
            channels: of w.
        """
        super().__init__()
        self.register_buffer("weight", torch.zeros(channels))

    def forward(self, numbers: Float[Tensor, " n"]) -> Float[Tensor, " n_times_two_channels"]:
        """The embedding of all numbers in one vector.

        Args:
            numbers: x.
        """
        angles = 2.0 * math.pi * numbers.to(self.weight.dtype)[:, None] * self.weight
        return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten()

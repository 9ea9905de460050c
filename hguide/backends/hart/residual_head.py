"""The network of HART's residual head: an MLP with AdaLN that predicts noise and variance of one token's residual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hguide.backends.hart.timestep import TimestepEmbedding

__all__ = ["ResidualHead"]

EPS = 1e-6


class ResidualBlock(nn.Module):
    """u += gate MLP(LN(u)(1 + scale) + shift), MLP = Linear, SiLU, Linear."""

    def __init__(self, width: int) -> None:
        """Make the block.

        Args:
            width: channels.
        """
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, u: Float[Tensor, "m w"], condition: Float[Tensor, "m w"]) -> Float[Tensor, "m w"]:
        """One block.

        Args:
            u: of each token.
            condition: of each token and the step.
        """
        shift, scale, gate = self.adaLN_modulation(condition).chunk(3, dim=-1)
        return torch.addcmul(u, gate, self.mlp(torch.addcmul(shift, self.in_ln(u), 1 + scale)))


class FinalLayer(nn.Module):
    """Linear(LN(u)(1 + scale) + shift), the norm without weights."""

    def __init__(self, width: int, channels: int) -> None:
        """Make the layer.

        Args:
            width: channels of u.
            channels: of the output.
        """
        super().__init__()
        self.linear = nn.Linear(width, channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, u: Float[Tensor, "m w"], condition: Float[Tensor, "m w"]) -> Float[Tensor, "m c"]:
        """The output of each token."""
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=-1)
        return self.linear(torch.addcmul(shift, F.layer_norm(u, u.shape[-1:], eps=EPS), 1 + scale))


class ResidualHead(nn.Module):
    """Noise and variance channel of a noisy residual (arXiv 2410.10812, section 3.3; state-dict keys as published)."""

    def __init__(self, channels: int, condition: int, width: int, depth: int) -> None:
        """Make the network.

        Args:
            channels: of a residual, those of a code.
            condition: channels of the condition z.
            width: of the network.
            depth: number of blocks.
        """
        super().__init__()
        self.channels = channels
        self.time_embed = TimestepEmbedding(width)
        self.cond_embed = nn.Linear(condition, width)
        self.input_proj = nn.Linear(channels, width)
        self.res_blocks = cast("Sequence[ResidualBlock]", nn.ModuleList(ResidualBlock(width) for _ in range(depth)))
        self.final_layer = FinalLayer(width, 2 * channels)

    def embed(self, z: Float[Tensor, "m z"]) -> Float[Tensor, "m w"]:
        """What a condition is for every step: computed once per draw."""
        return self.cond_embed(z.to(self.cond_embed.weight.dtype))

    def forward(
        self, noisy: Float[Tensor, "m c"], timestep: Float[Tensor, " t"], condition: Float[Tensor, "m w"]
    ) -> Float[Tensor, "m two_c"]:
        """[eps | v] of noisy residuals.

        Args:
            noisy: x_t.
            timestep: of the 1000 of training, `(1,)`, or `(m,)` where the tokens have their own.
            condition: from `embed`.

        Returns:
            `(m, 2 channels)` in the type of the weights.
        """
        condition = self.time_embed(timestep) + condition
        u = self.input_proj(noisy.to(self.input_proj.weight.dtype))
        for block in self.res_blocks:
            u = block(u, condition)
        return self.final_layer(u, condition)

"""The blocks of the convolutional autoencoder; attribute names are those of the published files."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["AttentionBlock", "Downsample", "ResidualBlock", "Upsample", "activated", "group_norm"]

GROUPS = 32
EPSILON = 1e-6


def group_norm(channels: int, groups: int = GROUPS) -> nn.GroupNorm:
    """Group norm as every block uses it: epsilon 1e-6, 32 groups in the published files.

    Args:
        channels: width of the map, a multiple of `groups`.
        groups: number of groups.

    Returns:
        the layer.
    """
    return nn.GroupNorm(groups, channels, eps=EPSILON)


def activated(fresh: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """SiLU of a map that nobody else holds: in its place where no gradient needs what it was."""
    return F.silu(fresh, inplace=not torch.is_grad_enabled())


class ResidualBlock(nn.Module):
    """Twice norm, SiLU, 3x3 convolution; a 1x1 convolution on the shortcut where the width changes."""

    def __init__(self, channels: int, out_channels: int, groups: int = GROUPS) -> None:
        """Make the block.

        Args:
            channels: width of the input.
            out_channels: width of the output.
            groups: of its group norms.
        """
        super().__init__()
        self.norm1 = group_norm(channels, groups)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """x or its 1x1 convolution, plus the residual branch."""
        hidden = self.conv1(activated(self.norm1(x)))
        hidden = self.conv2(activated(self.norm2(hidden)))
        # A map of full size that is written anew costs more than the sum.
        return self.nin_shortcut(x) + hidden if torch.is_grad_enabled() else hidden.add_(self.nin_shortcut(x))


class AttentionBlock(nn.Module):
    """Single-head self-attention over all positions of a map, with a residual connection."""

    def __init__(self, channels: int, groups: int = GROUPS) -> None:
        """Make the block.

        Args:
            channels: width of the map and of the head.
            groups: of its group norm.
        """
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """x + proj(softmax(q k^T / sqrt(c)) v)."""
        queries, keys, values = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return x + self.proj_out(mixed.squeeze(1).transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """3x3 convolution of stride 2 on a map padded by one at the right and the bottom."""

    def __init__(self, channels: int) -> None:
        """Make the layer.

        Args:
            channels: width of the map.
        """
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Half the size along each axis."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        """Make the layer.

        Args:
            channels: width of the map.
        """
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Twice the size along each axis."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))

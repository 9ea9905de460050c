"""The convolutional encoder and decoder around the quantizers of VAR, HART and Infinity."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hguide.backends.conv_blocks import (
    GROUPS,
    AttentionBlock,
    Downsample,
    ResidualBlock,
    Upsample,
    activated,
    group_norm,
)
from hguide.errors import ConfigError

__all__ = ["AutoencoderConfig", "Decoder", "Encoder", "channels_last_on_cpu"]

IMAGE_CHANNELS = 3


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the encoder and the decoder; the defaults are VAR's `vae_ch160v4096z32` (arXiv 2404.02905).

    Attributes:
        channels: width at full resolution, a multiple of `groups`.
        multipliers: width of each level as a multiple of `channels`, from full resolution down.
        blocks: residual blocks per encoder level; the decoder has one more.
        latent_channels: channels of the latent map.
        groups: of every group norm; 32 in the published files. A group of one or two channels loses their means, and
            with them the colour of the picture, so narrow networks want fewer.
        attention: attention at the lowest resolution; Infinity's tokenizers have none.
    """

    channels: int = 160
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    latent_channels: int = 32
    groups: int = GROUPS
    attention: bool = True

    def __post_init__(self) -> None:
        """Refuse sizes that no network can have.

        Raises:
            ConfigError: `channels` is not a positive multiple of `groups`, or another size is not positive.
        """
        if self.groups < 1:
            raise ConfigError(f"groups must be positive, got {self.groups}.")
        if self.channels <= 0 or self.channels % self.groups:
            raise ConfigError(
                f"channels must be a positive multiple of {self.groups} (group norm has {self.groups} groups), "
                f"got {self.channels}; try {max(self.groups, round(self.channels / self.groups) * self.groups)}."
            )
        if not self.multipliers or min(self.multipliers) < 1:
            raise ConfigError(f"multipliers must be one or more positive integers, got {self.multipliers}.")
        if self.blocks < 1 or self.latent_channels < 1:
            raise ConfigError(
                f"blocks and latent_channels must be positive, got {self.blocks} and {self.latent_channels}."
            )

    @property
    def stride(self) -> int:
        """Pixels per latent position along each axis: 2^(levels - 1)."""
        return int(2 ** (len(self.multipliers) - 1))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, from full resolution down."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)


class Level(nn.Module):
    """The residual blocks of one resolution, with attention after each of them at the lowest one."""

    def __init__(self, channels: int, out_channels: int, blocks: int, attention: bool, groups: int) -> None:
        """Make the level.

        Args:
            channels: width of the input.
            out_channels: width of the level.
            blocks: number of residual blocks.
            attention: whether an attention block follows each residual block.
            groups: of the group norms.
        """
        super().__init__()
        widths = [channels] + [out_channels] * blocks
        self.block = nn.ModuleList(ResidualBlock(before, after, groups) for before, after in pairwise(widths))
        self.attn = nn.ModuleList(AttentionBlock(out_channels, groups) for _ in range(blocks if attention else 0))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """The level's blocks, before any change of resolution."""
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        return x


class DownLevel(Level):
    """A level of the encoder, followed by a halving unless it is the lowest."""

    def __init__(
        self, channels: int, out_channels: int, blocks: int, attention: bool, lowest: bool, groups: int
    ) -> None:
        """Make the level.

        Args:
            channels: width of the input.
            out_channels: width of the level.
            blocks: number of residual blocks.
            attention: whether an attention block follows each residual block.
            lowest: whether this is the lowest resolution.
            groups: of the group norms.
        """
        super().__init__(channels, out_channels, blocks, attention, groups)
        self.downsample = nn.Identity() if lowest else Downsample(out_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """The level's blocks, then the halving."""
        return self.downsample(super().forward(x))


class UpLevel(Level):
    """A level of the decoder, followed by a doubling unless it is at full resolution."""

    def __init__(self, channels: int, out_channels: int, blocks: int, attention: bool, full: bool, groups: int) -> None:
        """Make the level.

        Args:
            channels: width of the input.
            out_channels: width of the level.
            blocks: number of residual blocks.
            attention: whether an attention block follows each residual block.
            full: whether this is the full resolution.
            groups: of the group norms.
        """
        super().__init__(channels, out_channels, blocks, attention, groups)
        self.upsample = nn.Identity() if full else Upsample(out_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """The level's blocks, then the doubling."""
        return self.upsample(super().forward(x))


class Middle(nn.Module):
    """Residual block, attention or none, residual block at the lowest resolution."""

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        """Make the blocks.

        Args:
            channels: width of the map.
            groups: of the group norms.
            attention: whether an attention block stands between the residual ones.
        """
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, groups)
        self.attn_1 = AttentionBlock(channels, groups) if attention else nn.Identity()
        self.block_2 = ResidualBlock(channels, channels, groups)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The three blocks in turn."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Images to latent maps."""

    def __init__(self, config: AutoencoderConfig) -> None:
        """Make the encoder.

        Args:
            config: its sizes.
        """
        super().__init__()
        widths = config.widths
        before = (config.channels, *widths[:-1])
        lowest = len(widths) - 1
        self.conv_in = nn.Conv2d(IMAGE_CHANNELS, config.channels, 3, padding=1)
        self.down = nn.ModuleList(
            DownLevel(
                before[level],
                width,
                config.blocks,
                config.attention and level == lowest,
                level == lowest,
                config.groups,
            )
            for level, width in enumerate(widths)
        )
        self.mid = Middle(widths[-1], config.groups, config.attention)
        self.norm_out = group_norm(widths[-1], config.groups)
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b c h w"]:
        """Encode images.

        Args:
            images: in [-1, 1]; height and width multiples of the stride.

        Returns:
            the latent map, before `quant_conv`.
        """
        hidden = self.conv_in(images)
        for level in self.down:
            hidden = level(hidden)
        return self.conv_out(activated(self.norm_out(self.mid(hidden))))


class Decoder(nn.Module):
    """Latent maps to images."""

    def __init__(self, config: AutoencoderConfig) -> None:
        """Make the decoder; `up.0` is the full resolution, so the levels run from the last to the first.

        Args:
            config: its sizes.
        """
        super().__init__()
        widths = config.widths
        lowest = len(widths) - 1
        before = (*widths[1:], widths[-1])
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], config.groups, config.attention)
        self.up = nn.ModuleList(
            UpLevel(
                before[level], width, config.blocks + 1, config.attention and level == lowest, level == 0, config.groups
            )
            for level, width in enumerate(widths)
        )
        self.norm_out = group_norm(widths[0], config.groups)
        self.conv_out = nn.Conv2d(widths[0], IMAGE_CHANNELS, 3, padding=1)

    def forward(self, latent: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 height width"]:
        """Decode latent maps.

        Args:
            latent: the map after `post_quant_conv`.

        Returns:
            images, about [-1, 1] and not clamped.
        """
        hidden = self.mid(self.conv_in(latent))
        for level in reversed(self.up):
            hidden = level(hidden)
        return self.conv_out(activated(self.norm_out(hidden)))


def channels_last_on_cpu(decoder: nn.Module) -> None:
    """Lay the weights of a decoder channels last where they lie on a CPU: 4 to 28 % quicker there.

    Convolutions want it, and the norms between them keep it. Its images differ in their last bits.
    """
    if next(decoder.parameters()).device.type == "cpu":
        decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

"""Shape of a Switti transformer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from hguide.errors import ConfigError
from hguide.grids import Grid

__all__ = ["SCHEDULES", "TransformerConfig"]

SCHEDULES = {
    256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    1024: (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
}
"""Pixels -> side of the map of each scale."""


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of a Switti transformer; the defaults are those of the published models, at 512 pixels.

    Attributes:
        patch_nums: side of the square token map of each scale, coarse to fine.
        depth: number of blocks.
        width: channels C of the residual stream.
        heads: attention heads; the channels of one are a multiple of 4.
        hidden: channels between the layers of the feed-forward network.
        vocabulary: codebook size V.
        latent_channels: channels of a code vector.
        text_channels: channels of a text token, those of both towers together.
        pooled_channels: channels of the pooled text, that of the second tower.
        text_tokens: tokens of a text, padding included.
        autoregressive: whether a scale sees the scales before it by attention; otherwise it sees itself alone, and its
            past in its input only.
        crop: whether the blocks are told a crop of the training pictures.
        rope_theta: base of the rotary frequencies.
        rope_size: what the side of every map is stretched to.
        eps: epsilon of all norms.
    """

    patch_nums: tuple[int, ...] = SCHEDULES[512]
    depth: int = 30
    width: int = 1920
    heads: int = 30
    hidden: int = 5120
    vocabulary: int = 4096
    latent_channels: int = 32
    text_channels: int = 2048
    pooled_channels: int = 1280
    text_tokens: int = 77
    autoregressive: bool = False
    crop: bool = True
    rope_theta: float = 10000.0
    rope_size: float = 128.0
    eps: float = 1e-6

    def __post_init__(self) -> None:
        """Check all options at once.

        Raises:
            ConfigError: naming every option that cannot work.
        """
        sides = self.patch_nums
        problems = []
        if not sides or min(sides) < 1 or sides[0] != 1 or any(a >= b for a, b in pairwise(sides)):
            problems.append(f"patch_nums grow strictly from 1, given {sides}")
        sizes = ("depth", "width", "heads", "hidden", "vocabulary", "latent_channels", "text_tokens")
        for name in (*sizes, "text_channels", "pooled_channels"):
            if getattr(self, name) < 1:
                problems.append(f"{name} is positive, given {getattr(self, name)}")
        if self.heads > 0 and (self.width % self.heads or self.head_dim % 4):
            problems.append(
                f"width is heads times a multiple of 4, given width={self.width}, heads={self.heads}: a head turns by "
                "rows and columns in pairs of channels"
            )
        if self.crop and self.width % 8:
            problems.append(f"width is a multiple of 8 where the crop is embedded, given {self.width}")
        if self.pooled_channels > self.text_channels:
            problems.append("pooled_channels are at most text_channels")
        for name in ("rope_theta", "rope_size", "eps"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                problems.append(f"{name} is a positive number, given {getattr(self, name)}")
        if problems:
            raise ConfigError("TransformerConfig: " + "; ".join(problems) + ".")

    @property
    def grids(self) -> tuple[Grid, ...]:
        """`(height, width)` of each scale."""
        return tuple((side, side) for side in self.patch_nums)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each scale."""
        return tuple(side * side for side in self.patch_nums)

    @property
    def length(self) -> int:
        """Tokens L of the whole sequence."""
        return sum(self.lengths)

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

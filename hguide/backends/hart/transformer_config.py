"""Shape of a HART transformer with its residual head."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from hguide.errors import ConfigError, near_matches
from hguide.grids import Grid

__all__ = ["TransformerConfig"]

_CHOICES = {
    "adaln": ("none", "linear", "table"),
    "pooling": ("max", "avg"),
    "ffn": ("llama", "gpt2"),
    "level_embedding": ("timestep", "table"),
}
_COUNTS = ("depth", "width", "heads", "hidden", "vocabulary", "latent_channels", "context_tokens", "context_dim")
_RESIDUAL_COUNTS = ("residual_width", "residual_depth", "diffusion_steps")


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of a HART transformer (arXiv 2410.10812).

    Attributes:
        patch_nums: side of the square token map of each scale, coarse to fine; the first is 1.
        depth: number of blocks.
        width: channels C of the residual stream.
        heads: attention heads; the channels of one are a multiple of 4, for the rotary positions.
        hidden: hidden width of the feed-forward layer.
        vocabulary: codebook size V.
        latent_channels: channels of a code vector.
        context_tokens: text tokens, padding included; the last of them predicts the first scale.
        context_dim: channels of a text embedding.
        adaln: how the text modulates the blocks: "none" (the published model), "linear" (a layer per block), "table"
            (a table per block plus the pooled text).
        pooling: of the text for `adaln="linear"`: "max" over all tokens, "avg" over those that are no padding.
        ffn: "llama" (gated SiLU, no bias) or "gpt2" (GELU).
        l2_norm: queries and keys normalised, with a learnt scale per head.
        context_norm: text embeddings go through an RMS norm first.
        level_embedding: "timestep" (sinusoid and MLP) or "table".
        eps: epsilon of the RMS norms.
        residual_width: channels of the residual head.
        residual_depth: blocks of the residual head.
        diffusion_steps: of the residual head's sampler.
    """

    patch_nums: tuple[int, ...]
    depth: int
    width: int
    heads: int
    hidden: int
    vocabulary: int
    latent_channels: int
    context_tokens: int = 300
    context_dim: int = 1536
    adaln: str = "none"
    pooling: str = "max"
    ffn: str = "llama"
    l2_norm: bool = True
    context_norm: bool = True
    level_embedding: str = "timestep"
    eps: float = 1e-6
    residual_width: int = 1024
    residual_depth: int = 6
    diffusion_steps: int = 8

    def __post_init__(self) -> None:
        """Check all options at once.

        Raises:
            ConfigError: naming every option that cannot work.
        """
        object.__setattr__(self, "patch_nums", tuple(self.patch_nums))
        sides = self.patch_nums
        problems = []
        growing = all(_is_count(p) for p in sides) and all(a < b for a, b in pairwise(sides))
        if len(sides) < 2 or not growing or sides[0] != 1:
            problems.append(f"patch_nums must be integers that grow strictly from 1, at least two, given {sides}")
        for name in (*_COUNTS, *_RESIDUAL_COUNTS):
            if not _is_count(getattr(self, name)):
                problems.append(f"{name} must be a positive integer, given {getattr(self, name)!r}")
        if _is_count(self.width) and _is_count(self.heads) and self.width % (4 * self.heads):
            problems.append(f"width must be a multiple of 4 heads, given width={self.width}, heads={self.heads}")
        if self.diffusion_steps == 1:
            problems.append("diffusion_steps must be at least 2")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                problems.append(
                    f"unknown {name} {getattr(self, name)!r}: {near_matches(str(getattr(self, name)), known)}"
                )
        if not (math.isfinite(self.eps) and self.eps > 0):
            problems.append(f"eps must be a positive number, given {self.eps!r}")
        if problems:
            raise ConfigError("TransformerConfig: " + "; ".join(problems) + ".")

    @property
    def grids(self) -> tuple[Grid, ...]:
        """`(height, width)` of each scale."""
        return tuple((p, p) for p in self.patch_nums)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each scale in the sequence; those of the first are the text's."""
        return (self.context_tokens, *(p * p for p in self.patch_nums[1:]))

    @property
    def length(self) -> int:
        """Tokens of the whole sequence: 9750 for the published model."""
        return sum(self.lengths)

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

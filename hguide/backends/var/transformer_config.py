"""Shape of a VAR transformer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from hguide.errors import ConfigError
from hguide.grids import Grid

__all__ = ["TransformerConfig"]


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of a VAR transformer.

    Attributes:
        patch_nums: side of the square token map of each scale, coarse to fine.
        depth: number of blocks.
        width: channels C of the residual stream.
        heads: attention heads; `width` is a multiple of it.
        classes: number of classes; the label `classes` itself means "no class".
        vocabulary: codebook size V.
        latent_channels: channels of a code vector.
        shared_adaln: one condition layer for all blocks plus a table per block (the 512 px checkpoint).
        l2_norm: queries and keys normalised, with a learnt scale per head (every current checkpoint).
        mlp_ratio: hidden width of the MLP over `width`.
        eps: epsilon of the layer norms.
    """

    patch_nums: tuple[int, ...]
    depth: int
    width: int
    heads: int
    classes: int
    vocabulary: int
    latent_channels: int
    shared_adaln: bool = False
    l2_norm: bool = True
    mlp_ratio: float = 4.0
    eps: float = 1e-6

    def __post_init__(self) -> None:
        """Check all options at once.

        Raises:
            ConfigError: naming every option that cannot work.
        """
        object.__setattr__(self, "patch_nums", tuple(self.patch_nums))
        problems = []
        sides = self.patch_nums
        if not sides or any(not _is_count(p) for p in sides) or any(a >= b for a, b in pairwise(sides)):
            problems.append(f"patch_nums must be positive integers that grow strictly, given {sides}")
        for name in ("depth", "width", "heads", "classes", "vocabulary", "latent_channels"):
            if not _is_count(getattr(self, name)):
                problems.append(f"{name} must be a positive integer, given {getattr(self, name)!r}")
        if _is_count(self.width) and _is_count(self.heads) and self.width % self.heads:
            problems.append(f"width must be a multiple of heads, given width={self.width}, heads={self.heads}")
        for name in ("mlp_ratio", "eps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                problems.append(f"{name} must be a positive number, given {value!r}")
        if problems:
            raise ConfigError("TransformerConfig: " + "; ".join(problems) + ".")

    @property
    def grids(self) -> tuple[Grid, ...]:
        """`(height, width)` of each scale."""
        return tuple((p, p) for p in self.patch_nums)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each scale."""
        return tuple(p * p for p in self.patch_nums)

    @property
    def starts(self) -> tuple[int, ...]:
        """Position in the sequence at which each scale begins."""
        return tuple(sum(self.lengths[:k]) for k in range(len(self.patch_nums)))

    @property
    def length(self) -> int:
        """Tokens L of the whole sequence."""
        return sum(self.lengths)

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        """Hidden width of the MLP."""
        return round(self.width * self.mlp_ratio)

    @property
    def null_label(self) -> int:
        """The label that means "no class"."""
        return self.classes


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

"""Shape of an Infinity transformer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hguide.errors import ConfigError

__all__ = ["ROPE_MODES", "TransformerConfig"]

ROPE_MODES = (0, 1, 2)
_SIZES = ("depth", "width", "heads", "bits", "text_channels", "text_length", "text_heads", "chunks", "levels", "hidden")
_HIDDEN_STEP = 256
_WIDE = 4096


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of an Infinity transformer (arXiv 2412.04431); the defaults are those of the published models.

    Attributes:
        depth: number of blocks.
        width: channels C of the residual stream.
        heads: attention heads; `width` is a multiple of it, the head's channels of 4.
        bits: bits d of one tokenizer position.
        text_channels: channels Ct of the text features.
        patchify: a token holds 2 x 2 tokenizer positions, 4 d bits (the 8B models).
        text_length: rows of the learnt unconditional text, which bound the length of a prompt.
        text_heads: heads of the text pooling; None for Ct/128, or Ct/64 where C is above 4096.
        chunks: groups of blocks; they matter where every one of them gets the level embedding.
        levels: rows of the level embedding, which bound the number of scales.
        hidden: hidden width of the MLP; None for 4C rounded to a multiple of 256.
        level_every_chunk: add the level embedding before each chunk, not before the first block alone.
        rope_mode: 2 for positions on the grid of the largest picture, 1 for tables resized from 128 positions, 0 for
            plain indices.
        eps: epsilon of the norms.
    """

    depth: int
    width: int
    heads: int
    bits: int
    text_channels: int
    patchify: bool = False
    text_length: int = 512
    text_heads: int | None = None
    chunks: int = 1
    levels: int = 15
    hidden: int | None = None
    level_every_chunk: bool = False
    rope_mode: int = 2
    eps: float = 1e-6

    def __post_init__(self) -> None:
        """Fill in what follows from the rest, and check all options at once.

        Raises:
            ConfigError: naming every option that cannot work.
        """
        if self.text_heads is None and _is_count(self.text_channels):
            per_head = 64 if self.width > _WIDE else 128
            object.__setattr__(self, "text_heads", max(self.text_channels // per_head, 1))
        if self.hidden is None and _is_count(self.width):
            object.__setattr__(self, "hidden", max(round(4 * self.width / _HIDDEN_STEP), 1) * _HIDDEN_STEP)
        problems = [
            f"{name} must be a positive integer, given {getattr(self, name)!r}"
            for name in _SIZES
            if not _is_count(getattr(self, name))
        ]
        if not problems:
            problems += self._misfits()
        if self.rope_mode not in ROPE_MODES:
            problems.append(f"rope_mode is one of {ROPE_MODES}, given {self.rope_mode!r}")
        if not (math.isfinite(self.eps) and self.eps > 0):
            problems.append(f"eps must be a positive number, given {self.eps!r}")
        if problems:
            raise ConfigError("TransformerConfig: " + "; ".join(problems) + ".")

    def _misfits(self) -> list[str]:
        """Sizes that do not divide each other."""
        found = []
        if self.width % self.heads or self.head_dim % 4:
            found.append(f"width must be heads times a multiple of 4, given width={self.width}, heads={self.heads}")
        if self.width % self.pool_heads:
            found.append(f"width must be a multiple of text_heads, given {self.width} and {self.pool_heads}")
        if self.depth % self.chunks:
            found.append(f"depth must be a multiple of chunks, given {self.depth} and {self.chunks}")
        return found

    @property
    def token_bits(self) -> int:
        """Bits c of one token."""
        return 4 * self.bits if self.patchify else self.bits

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @property
    def pool_heads(self) -> int:
        """Heads of the text pooling."""
        assert self.text_heads is not None
        return self.text_heads

    @property
    def mlp_width(self) -> int:
        """Hidden width of the MLP."""
        assert self.hidden is not None
        return self.hidden

    @property
    def chunk_starts(self) -> tuple[int, ...]:
        """First block of each chunk."""
        return tuple(range(0, self.depth, self.depth // self.chunks))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

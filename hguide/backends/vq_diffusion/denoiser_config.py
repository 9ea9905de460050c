"""Shape of a VQ-Diffusion denoiser."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hguide.errors import ConfigError
from hguide.grids import Grid

__all__ = ["DenoiserConfig"]

_COUNTS = ("codes", "timesteps", "depth", "width", "heads", "classes", "text_channels", "text_length")


@dataclass(frozen=True)
class DenoiserConfig:
    """Shape of a denoiser.

    Attributes:
        condition: "class" (a label enters through the norm of a convolutional MLP) or "text" (cross attention).
        codes: number K of codes that a token can be; the mask is one more, with index K.
        timesteps: number T of diffusion steps.
        depth: number of blocks.
        width: channels D of the residual stream.
        heads: attention heads; `width` is a multiple of it.
        grid: height and width of the token map.
        position_grid: rows and columns of the tables of positions. Token i takes row i // columns and column
            i % columns, also where the map is narrower than the table: the published ImageNet model, with maps of
            16 x 16 and tables of 32, was trained that way.
        classes: number of classes; 0 for text.
        learned_null: the null condition is learnt: one more row in the tables of classes, or an embedding in place of
            the text. Without it the null class is the mean of all rows, the null text the embedding of "".
        text_channels: channels of a text embedding.
        text_length: tokens of a text, padding included.
        mlp_ratio: hidden width of the MLP over `width`.
    """

    condition: str
    codes: int
    timesteps: int
    depth: int
    width: int
    heads: int
    grid: Grid
    position_grid: Grid
    classes: int = 0
    learned_null: bool = False
    text_channels: int = 512
    text_length: int = 77
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        """Check all options at once.

        Raises:
            ConfigError: naming every option that cannot work.
        """
        problems = [
            f"{name} must be a positive integer, given {getattr(self, name)!r}"
            for name in _COUNTS
            if not _is_count(getattr(self, name)) and not (name == "classes" and self.condition == "text")
        ]
        if self.condition not in ("class", "text"):
            problems.append(f"condition is 'class' or 'text', given {self.condition!r}")
        for name in ("grid", "position_grid"):
            value = getattr(self, name)
            if len(value) != 2 or not all(map(_is_count, value)):
                problems.append(f"{name} must be two positive integers, given {value!r}")
        if not problems:
            problems = self._unfit()
        if problems:
            raise ConfigError("DenoiserConfig: " + "; ".join(problems) + ".")

    def _unfit(self) -> list[str]:
        found = []
        if self.width % self.heads:
            found.append(f"width must be a multiple of heads, given width={self.width}, heads={self.heads}")
        if self.timesteps < 2:
            found.append(f"timesteps must be at least 2, given {self.timesteps}")
        if math.prod(self.grid) > math.prod(self.position_grid):
            found.append(f"a map of {self.grid} has more tokens than the tables of positions, {self.position_grid}")
        if not (math.isfinite(self.mlp_ratio) and self.mlp_ratio > 0):
            found.append(f"mlp_ratio must be a positive number, given {self.mlp_ratio!r}")
        return found

    @property
    def length(self) -> int:
        """Tokens L of a map."""
        return self.grid[0] * self.grid[1]

    @property
    def mask(self) -> int:
        """Index of the mask token."""
        return self.codes

    @property
    def hidden(self) -> int:
        """Hidden width of the MLP."""
        return round(self.width * self.mlp_ratio)

    @property
    def null_label(self) -> int:
        """The label that means "no class"."""
        return self.classes

    @property
    def class_rows(self) -> int:
        """Rows of the tables of classes."""
        return self.classes + int(self.learned_null)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

"""The blocks of the denoiser; attribute names are those of the published files."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hguide.backends.vq_diffusion.denoiser_config import DenoiserConfig
from hguide.grids import Grid

__all__ = ["AdaptiveLayerNorm", "Attention", "ClassBlock", "ConvMLP", "QuickGELU", "TextBlock"]

EPSILON = 1e-5
SLOPE = 1.702


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x)."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Elementwise."""
        return x * torch.sigmoid(SLOPE * x)


class AdaptiveLayerNorm(nn.Module):
    """LayerNorm(x) (1 + scale) + shift, (scale, shift) = linear(silu(table[row]))."""

    def __init__(self, rows: int, width: int, mean_row: bool = False) -> None:
        """Make the layer.

        Args:
            rows: of the table.
            width: channels.
            mean_row: let one more row, with index `rows`, stand for the mean of all.
        """
        super().__init__()
        self.mean_row = mean_row
        self.emb = nn.Embedding(rows, width)
        self.linear = nn.Linear(width, 2 * width)

    def forward(self, x: Float[Tensor, "b l d"], row: Int[Tensor, " r"]) -> Float[Tensor, "b l d"]:
        """Normalise.

        Args:
            x: tokens.
            row: of the table, one for each sample or one for all.
        """
        scale, shift = self.linear(F.silu(self._embedding(row))).unsqueeze(1).chunk(2, dim=-1)
        return F.layer_norm(x, x.shape[-1:], eps=EPSILON) * (1 + scale) + shift

    def _embedding(self, row: Int[Tensor, " r"]) -> Float[Tensor, "r d"]:
        if not self.mean_row:
            return self.emb(row)
        rows = self.emb.num_embeddings
        known = self.emb(row.clamp(max=rows - 1))
        return torch.where((row == rows).unsqueeze(1), self.emb.weight.mean(0), known)


class Attention(nn.Module):
    """Multi-head attention over all positions, with biases, of tokens to themselves or to a text."""

    def __init__(self, width: int, heads: int, context_width: int | None = None) -> None:
        """Make the layer.

        Args:
            width: channels of the tokens.
            heads: number of heads.
            context_width: channels of the text; None for self-attention.
        """
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width or width, width)
        self.value = nn.Linear(context_width or width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b l d"], context: Float[Tensor, "b s c"] | None = None) -> Tensor:
        """proj(softmax(q k^T / sqrt(d / heads)) v), `(b, l, d)`; every position of the context is seen."""
        source = x if context is None else context
        parts = (self.query(x), self.key(source), self.value(source))
        queries, keys, values = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class ConvMLP(nn.Module):
    """An MLP whose layers are 3x3 convolutions over the token map."""

    def __init__(self, width: int, hidden: int, grid: Grid) -> None:
        """Make the layers.

        Args:
            width: channels of the tokens.
            hidden: channels between the layers.
            grid: of the token map.
        """
        super().__init__()
        self.grid = grid
        self.conv1 = nn.Conv2d(width, hidden, 3, padding=1)
        self.act = QuickGELU()
        self.conv2 = nn.Conv2d(hidden, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """On the tokens as a map, row by row."""
        maps = x.transpose(1, 2).unflatten(2, self.grid)
        return self.conv2(self.act(self.conv1(maps))).flatten(2).transpose(1, 2)


class ClassBlock(nn.Module):
    """Self-attention after a norm by timestep, convolutional MLP after a norm by class."""

    def __init__(self, config: DenoiserConfig) -> None:
        """Make the block.

        Args:
            config: of the denoiser.
        """
        super().__init__()
        self.ln1 = AdaptiveLayerNorm(config.timesteps, config.width)
        self.attn = Attention(config.width, config.heads)
        self.ln2 = AdaptiveLayerNorm(config.class_rows, config.width, mean_row=not config.learned_null)
        self.mlp = ConvMLP(config.width, config.hidden, config.grid)

    def forward(self, x: Float[Tensor, "b l d"], timestep: Int[Tensor, " r"], label: Int[Tensor, " b"]) -> Tensor:
        """The block, `(b, l, d)`."""
        x = x + self.attn(self.ln1(x, timestep))
        return x + self.mlp(self.ln2(x, label))


class TextBlock(nn.Module):
    """Self-attention, then attention to the text, both after norms by timestep; MLP after a plain norm."""

    def __init__(self, config: DenoiserConfig) -> None:
        """Make the block.

        Args:
            config: of the denoiser.
        """
        super().__init__()
        self.ln1 = AdaptiveLayerNorm(config.timesteps, config.width)
        self.attn1 = Attention(config.width, config.heads)
        self.ln1_1 = AdaptiveLayerNorm(config.timesteps, config.width)
        self.attn2 = Attention(config.width, config.heads, config.text_channels)
        self.ln2 = nn.LayerNorm(config.width, eps=EPSILON)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.hidden), QuickGELU(), nn.Linear(config.hidden, config.width)
        )

    def forward(self, x: Float[Tensor, "b l d"], timestep: Int[Tensor, " r"], text: Float[Tensor, "b s c"]) -> Tensor:
        """The block, `(b, l, d)`."""
        x = x + self.attn1(self.ln1(x, timestep))
        x = x + self.attn2(self.ln1_1(x, timestep), text)
        return x + self.mlp(self.ln2(x))

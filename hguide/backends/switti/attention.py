"""Attention of Switti: to the tokens of the maps, and to the text."""

from __future__ import annotations

import math

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from hguide.backends.attention import Attend
from hguide.backends.switti.rope import Rotation, rotate
from hguide.backends.switti.transformer_config import TransformerConfig

__all__ = ["CrossAttention", "SelfAttention"]


class SelfAttention(nn.Module):
    """softmax(R q (R k)^T / sqrt(d)) v with q and k normalised over all heads together, R the rotary positions.

    Source: arXiv 2412.01819, section 3, and notes on the official program.
    """

    def __init__(self, config: TransformerConfig) -> None:
        """Make the layer.

        Args:
            config: of the transformer.
        """
        super().__init__()
        self.config = config
        self.to_qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Float[Tensor, "rows l c"], rotation: Rotation, attention: Attend) -> Float[Tensor, "rows l c"]:
        """Attention of the tokens x, to whatever `attention` lets them see.

        Args:
            x: `(rows, l, C)`, normalised and modulated.
            rotation: of the tokens.
            attention: the softmax attention, with its cache where there is one; it is given rotated keys.
        """
        queries, keys, values = self.to_qkv(x).chunk(3, dim=-1)
        queries, keys = (_heads(_centred(each, self.config), self.config) for each in (queries, keys))
        turned = (rotate(queries, rotation), rotate(keys, rotation))
        scale = 1.0 / math.sqrt(self.config.head_dim)
        found = attention(*turned, _heads(values, self.config), scale)
        return self.proj(found.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Attention of the maps to the text: q and k normalised over all heads together, no positions, no gate.

    *Reconstructed*: that the text's keys are normalised as those of the maps are.
    """

    def __init__(self, config: TransformerConfig) -> None:
        """Make the layer.

        Args:
            config: of the transformer.
        """
        super().__init__()
        self.config = config
        self.to_q = nn.Linear(config.width, config.width)
        self.to_kv = nn.Linear(config.text_channels, 2 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def keys_values(
        self, text: Float[Tensor, "rows t ct"]
    ) -> tuple[Float[Tensor, "rows heads t d"], Float[Tensor, "rows heads t d"]]:
        """Keys and values of the text, the same at every scale.

        Args:
            text: normalised.
        """
        keys, values = self.to_kv(text).chunk(2, dim=-1)
        return _heads(_centred(keys, self.config), self.config), _heads(values, self.config)

    def forward(
        self,
        x: Float[Tensor, "rows l c"],
        keys: Float[Tensor, "rows heads t d"],
        values: Float[Tensor, "rows heads t d"],
        mask: Bool[Tensor, "rows 1 1 t"],
    ) -> Float[Tensor, "rows l c"]:
        """Attention of the tokens x to the text.

        Args:
            x: `(rows, l, C)`, normalised.
            keys: from `keys_values`.
            values: the same.
            mask: True where the text is no padding.
        """
        queries = _heads(_centred(self.to_q(x), self.config), self.config)
        found = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=1.0 / math.sqrt(self.config.head_dim)
        )
        return self.proj(found.transpose(1, 2).flatten(2))


def _centred(x: Float[Tensor, "rows l c"], config: TransformerConfig) -> Float[Tensor, "rows l c"]:
    """Layer norm over all channels, without weights; its epsilon is *reconstructed*."""
    return F.layer_norm(x, (config.width,), eps=config.eps)


def _heads(x: Float[Tensor, "rows l c"], config: TransformerConfig) -> Float[Tensor, "rows heads l d"]:
    return x.unflatten(-1, (config.heads, -1)).transpose(1, 2)

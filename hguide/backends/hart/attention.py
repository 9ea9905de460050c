"""Self-attention of HART: one fused product, optional normalisation, then rotary positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hguide.backends.attention import Attend
from hguide.backends.hart.rope import Rotation, rotate

__all__ = ["AttentionConstants", "SelfAttention"]

_LARGEST_LOG_SCALE = math.log(100.0)
_SMALLEST_NORM = 1e-12


@dataclass(frozen=True, eq=False)
class AttentionConstants:
    """What the attention of a block needs and no token changes.

    Attributes:
        qkv_bias: query bias, zeros for the keys, value bias.
        query_scale: factor of the normalised queries per head, `(heads, 1, 1)`; None without l2-norm.
    """

    qkv_bias: Float[Tensor, " three_c"]
    query_scale: Float[Tensor, "heads 1 1"] | None


class SelfAttention(nn.Module):
    """Multi-head attention with one fused product; keys carry no bias (arXiv 2410.10812, official code).

    With l2-norm: q / max(|q|, 1e-12) * exp(min(scale_mul, ln 100)), k / max(|k|, 1e-12), softmax scale 1.
    Without: softmax scale 0.25 / sqrt(head_dim). Queries and keys are rotated after that.
    """

    def __init__(self, width: int, heads: int, l2_norm: bool) -> None:
        """Make the layer.

        Args:
            width: channels C.
            heads: attention heads.
            l2_norm: whether queries and keys are normalised.
        """
        super().__init__()
        self.heads, self.head_dim, self.l2_norm = heads, width // heads, l2_norm
        if l2_norm:
            self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4.0)))
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    @property
    def softmax_scale(self) -> float:
        """Factor of the inner products in front of the softmax."""
        return 1.0 if self.l2_norm else 0.25 / math.sqrt(self.head_dim)

    def constants(self) -> AttentionConstants:
        """What no token changes."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        scale = self.scale_mul_1H11[0].clamp_max(_LARGEST_LOG_SCALE).exp() if self.l2_norm else None
        return AttentionConstants(bias, scale)

    def forward(
        self, x: Float[Tensor, "rows l c"], constants: AttentionConstants, rotation: Rotation, attention: Attend
    ) -> Float[Tensor, "rows l c"]:
        """Attention of the tokens x, to whatever `attention` lets them see.

        Args:
            x: `(rows, l, C)`, normalised and modulated.
            constants: of this block.
            rotation: of the tokens.
            attention: the softmax attention, with its cache or mask; it is given rotated keys.

        Returns:
            `(rows, l, C)`.
        """
        rows, tokens, width = x.shape
        qkv = F.linear(x, self.qkv_proj.weight, constants.qkv_bias)
        queries, keys, values = qkv.view(rows, tokens, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        if constants.query_scale is not None:
            queries = _normalised(queries) * constants.query_scale
            keys = _normalised(keys)
        found = attention(rotate(queries, rotation), rotate(keys, rotation), values, self.softmax_scale)
        return self.proj(found.transpose(1, 2).reshape(rows, tokens, width))


def _normalised(x: Float[Tensor, "rows heads l d"]) -> Float[Tensor, "rows heads l d"]:
    return F.normalize(x, dim=-1, eps=_SMALLEST_NORM)

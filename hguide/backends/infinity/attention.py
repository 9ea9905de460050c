"""Self-attention, cross attention and block of the Infinity transformer; what no step changes is passed in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hguide.backends.attention import MLP
from hguide.backends.infinity.text_pooling import PaddedText, attend_to_text, keys_values

__all__ = ["Attend", "Block", "BlockModulation", "CrossAttention", "SelfAttention"]

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(queries, keys, values) -> output`, each `(rows, heads, new, head_dim)`; the closure knows positions and past."""

_LARGEST_LOG_SCALE = math.log(100.0)
_SMALLEST_NORM = 1e-12


@dataclass(frozen=True)
class BlockModulation:
    """What a block needs and no image token changes.

    Attributes:
        vectors: gamma1, gamma2, 1 + scale1, 1 + scale2, shift1, shift2 of every row.
        qkv_bias: query bias, zeros for the keys, value bias.
        query_scale: factor of the normalised queries per head.
        text_keys: of the cross attention.
        text_values: of the cross attention.
        text_mask: True where a row may look.
        text_rounded_to: see `attend_to_text`.
    """

    vectors: Float[Tensor, "six rows 1 c"]
    qkv_bias: Float[Tensor, " three_c"]
    query_scale: Float[Tensor, "heads 1 1"]
    text_keys: Float[Tensor, "rows heads n d"]
    text_values: Float[Tensor, "rows heads n d"]
    text_mask: Bool[Tensor, "rows 1 1 n"]
    text_rounded_to: torch.dtype | None = None

    def part(self, first: int, stop: int) -> BlockModulation:
        """The rows from `first` to before `stop`, as views."""
        rows = slice(first, stop)
        return replace(
            self,
            vectors=self.vectors[:, rows],
            text_keys=self.text_keys[rows],
            text_values=self.text_values[rows],
            text_mask=self.text_mask[rows],
        )


class SelfAttention(nn.Module):
    """q/|q| exp(min(scale_mul, ln 100)), k/|k|, both rotated by their positions; softmax scale 1; keys have no bias.

    Norms and rotation run in float32, the products in the type of the weights.
    """

    def __init__(self, width: int, heads: int) -> None:
        """Make the layer.

        Args:
            width: channels C.
            heads: attention heads.
        """
        super().__init__()
        self.heads = heads
        self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4.0)))
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.mat_qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def qkv_bias(self) -> Float[Tensor, " three_c"]:
        """Bias of the fused product: q, zeros for k, v."""
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])

    def query_scale(self) -> Float[Tensor, "heads 1 1"]:
        """Factor of the normalised queries per head."""
        return _at_least_float(self.scale_mul_1H11[0]).clamp_max(_LARGEST_LOG_SCALE).exp()

    def forward(
        self, x: Float[Tensor, "rows l c"], constants: BlockModulation, attend: Attend
    ) -> Float[Tensor, "rows l c"]:
        """Attention of the tokens x, to whatever `attend` lets them see.

        Args:
            x: normalised and modulated.
            constants: of this block.
            attend: the softmax attention, with its rotation and its cache or mask.
        """
        weight = self.mat_qkv.weight
        qkv = F.linear(x.to(weight.dtype), weight, constants.qkv_bias).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)
        queries = F.normalize(_at_least_float(queries), dim=-1, eps=_SMALLEST_NORM) * constants.query_scale
        keys = F.normalize(_at_least_float(keys), dim=-1, eps=_SMALLEST_NORM)
        found = attend(queries, keys, values).to(weight.dtype)
        return self.proj(found.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """softmax(q k^T / sqrt(D)) v over the tokens of a row's own text; neither norms nor positions."""

    def __init__(self, width: int, heads: int) -> None:
        """Make the layer.

        Args:
            width: channels C.
            heads: attention heads.
        """
        super().__init__()
        self.heads = heads
        self.mat_q = nn.Linear(width, width)
        self.mat_kv = nn.Linear(width, 2 * width, bias=False)
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "rows l c"], constants: BlockModulation) -> Float[Tensor, "rows l c"]:
        """Attention of the tokens x to the texts.

        Args:
            x: normalised.
            constants: of this block.
        """
        weight = self.mat_q.weight
        queries = self.mat_q(x.to(weight.dtype)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        found = attend_to_text(
            queries, constants.text_keys, constants.text_values, constants.text_mask, constants.text_rounded_to
        )
        return self.proj(found.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x += gamma1 SA(LN(x)(1 + scale1) + shift1); x += CA(LN'(x)); x += gamma2 MLP(LN(x)(1 + scale2) + shift2).

    The six vectors are those of a layer shared by all blocks plus the table `ada_gss`. LN' alone has weights. The
    residual stream keeps its type, whatever the type of the block's weights.

    Source: arXiv 2412.04431, code.
    """

    def __init__(self, width: int, heads: int, hidden: int, eps: float = 1e-6) -> None:
        """Make the block.

        Args:
            width: channels C.
            heads: attention heads.
            hidden: hidden channels of the MLP.
            eps: epsilon of the norms.
        """
        super().__init__()
        self.width, self.eps = width, eps
        self.ada_gss = nn.Parameter(torch.zeros(1, 1, 6, width))
        self.sa = SelfAttention(width, heads)
        self.ca = CrossAttention(width, heads)
        self.ffn = MLP(width, hidden)
        self.ca_norm = nn.LayerNorm(width, eps=eps)

    def modulation(
        self,
        shared: Float[Tensor, "rows six_c"],
        memory: PaddedText,
        text_rounded_to: torch.dtype | None = None,
    ) -> BlockModulation:
        """What this block needs for the rows of a run.

        Args:
            shared: output of the shared condition layer.
            memory: texts, projected to the width of the stream.
            text_rounded_to: see `attend_to_text`.
        """
        vectors = shared.unflatten(-1, (6, self.width)) + self.ada_gss[0]
        gammas, scales, shifts = vectors.transpose(0, 1).unsqueeze(2).chunk(3)
        keys, values = keys_values(memory.features, self.ca.mat_kv, self.ca.v_bias, self.ca.heads)
        return BlockModulation(
            vectors=torch.cat([gammas, scales + 1, shifts]),
            qkv_bias=self.sa.qkv_bias(),
            query_scale=self.sa.query_scale(),
            text_keys=keys,
            text_values=values,
            text_mask=memory.mask[:, None, None],
            text_rounded_to=text_rounded_to,
        )

    def forward(
        self, x: Float[Tensor, "rows l c"], constants: BlockModulation, attend: Attend
    ) -> Float[Tensor, "rows l c"]:
        """One block.

        Args:
            x: residual stream.
            constants: of this block.
            attend: the softmax attention, with its rotation and its cache or mask.

        Returns:
            The new residual stream.
        """
        gamma1, gamma2, gain1, gain2, shift1, shift2 = constants.vectors.unbind(0)
        normed = torch.addcmul(shift1, F.layer_norm(x, (self.width,), eps=self.eps), gain1)
        x = torch.addcmul(x, gamma1, self.sa(normed, constants, attend).to(x.dtype))
        weight, bias = self.ca_norm.weight.to(x.dtype), self.ca_norm.bias.to(x.dtype)
        x = x + self.ca(F.layer_norm(x, (self.width,), weight, bias, self.eps), constants).to(x.dtype)
        normed = torch.addcmul(shift2, F.layer_norm(x, (self.width,), eps=self.eps), gain2)
        out = self.ffn(normed.to(self.ffn.fc1.weight.dtype))
        return torch.addcmul(x, gamma2, out.to(x.dtype))


def _at_least_float(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()

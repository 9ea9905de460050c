"""The block of the HART transformer in its three forms of modulation and two feed-forward layers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hguide.backends.attention import MLP, Attend
from hguide.backends.hart.attention import AttentionConstants, SelfAttention
from hguide.backends.hart.rope import Rotation
from hguide.backends.hart.transformer_config import TransformerConfig

__all__ = ["Block", "BlockConstants", "GatedMLP"]


class GatedMLP(nn.Module):
    """down(SiLU(gate x) up x), no bias."""

    def __init__(self, width: int, hidden: int) -> None:
        """Make the layer.

        Args:
            width: channels C.
            hidden: channels between the layers.
        """
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "rows l c"]) -> Float[Tensor, "rows l c"]:
        """`(rows, l, C)` in and out."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


@dataclass(frozen=True, eq=False)
class BlockConstants:
    """What a block needs and no token changes.

    Attributes:
        attention: of its attention.
        vectors: gamma1, gamma2, 1 + scale1, 1 + scale2, shift1, shift2 of every row; None without modulation.
    """

    attention: AttentionConstants
    vectors: Float[Tensor, "six rows 1 c"] | None

    def part(self, first: int, stop: int) -> BlockConstants:
        """The rows from `first` to before `stop`, as a view."""
        return self if self.vectors is None else replace(self, vectors=self.vectors[:, first:stop])


class Block(nn.Module):
    """x += gamma1 Attention(N(x)(1 + scale1) + shift1); x += gamma2 FFN(N(x)(1 + scale2) + shift2).

    N is one RMS norm that serves both places; despite its official name, `ln_wo_grad`, it has a learnt weight. The six
    vectors are those of `ada_lin`, or `scale_shift_table` plus the pooled text, or absent (the published model).
    """

    def __init__(self, config: TransformerConfig) -> None:
        """Make the block.

        Args:
            config: of the transformer.
        """
        super().__init__()
        width = config.width
        self.adaln = config.adaln
        self.attn = SelfAttention(width, config.heads, config.l2_norm)
        self.ffn: nn.Module = GatedMLP(width, config.hidden) if config.ffn == "llama" else MLP(width, config.hidden)
        self.ln_wo_grad = nn.RMSNorm(width, eps=config.eps)
        if config.adaln == "linear":
            self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        if config.adaln == "table":
            self.scale_shift_table = nn.Parameter(torch.zeros(6, width))

    def constants(self, pooled: Float[Tensor, "rows c"]) -> BlockConstants:
        """What this block needs for the rows of a run.

        Args:
            pooled: text of each row, read where the block is modulated.
        """
        attention = self.attn.constants()
        if self.adaln == "none":
            return BlockConstants(attention, None)
        if self.adaln == "linear":
            six = self.ada_lin(pooled).unflatten(-1, (6, -1))
        else:
            six = self.scale_shift_table + pooled[:, None]
        gammas, scales, shifts = six.transpose(0, 1).unsqueeze(2).chunk(3)
        return BlockConstants(attention, torch.cat([gammas, scales + 1, shifts]))

    def forward(
        self, x: Float[Tensor, "rows l c"], constants: BlockConstants, rotation: Rotation, attention: Attend
    ) -> Float[Tensor, "rows l c"]:
        """One block.

        Args:
            x: residual stream, `(rows, l, C)`.
            constants: of this block.
            rotation: of the tokens.
            attention: the softmax attention, with its cache or mask.

        Returns:
            The new residual stream, `(rows, l, C)`.
        """
        if constants.vectors is None:
            x = x + self.attn(self.ln_wo_grad(x), constants.attention, rotation, attention)
            return x + self.ffn(self.ln_wo_grad(x))
        gamma1, gamma2, gain1, gain2, shift1, shift2 = constants.vectors.unbind(0)
        normed = torch.addcmul(shift1, self.ln_wo_grad(x), gain1)
        x = torch.addcmul(x, gamma1, self.attn(normed, constants.attention, rotation, attention))
        normed = torch.addcmul(shift2, self.ln_wo_grad(x), gain2)
        return torch.addcmul(x, gamma2, self.ffn(normed))

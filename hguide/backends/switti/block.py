"""The block of the Switti transformer: a norm before and after each of its three parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from hguide.backends.attention import Attend
from hguide.backends.hart.block import GatedMLP
from hguide.backends.switti.attention import CrossAttention, SelfAttention
from hguide.backends.switti.rope import Rotation
from hguide.backends.switti.transformer_config import TransformerConfig

__all__ = ["Block", "BlockConstants", "WideRMSNorm"]


class WideRMSNorm(nn.RMSNorm):
    """RMS norm computed in float32 or wider, whatever the type of its input."""

    def forward(self, x: Float[Tensor, "*rows c"]) -> Float[Tensor, "*rows c"]:
        """The norm of x, in the type of x."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(wide), self.normalized_shape, self.weight.to(wide), self.eps).to(x.dtype)


@dataclass(frozen=True, eq=False)
class BlockConstants:
    """What a block needs and no token changes.

    Attributes:
        vectors: gamma1, gamma2, 1 + scale1, 1 + scale2, shift1, shift2 of every row.
        keys: of the text.
        values: of the text.
    """

    vectors: Float[Tensor, "six rows 1 c"]
    keys: Float[Tensor, "rows heads t d"]
    values: Float[Tensor, "rows heads t d"]

    def keep(self, rows: int) -> BlockConstants:
        """The first rows, as views."""
        return BlockConstants(self.vectors[:, :rows], self.keys[:rows], self.values[:rows])


class Block(nn.Module):
    """x += gamma1 N2(Attention(N1(x)(1 + scale1) + shift1)); x += N4(Cross(N3(x), text));
    x += gamma2 N6(FFN(N5(x)(1 + scale2) + shift2)), with RMS norms N.

    The six vectors come from the pooled text, to which each block adds its own share of the crop's embedding. The text
    has a norm of its own in every block.
    """

    def __init__(self, config: TransformerConfig) -> None:
        """Make the block.

        Args:
            config: of the transformer.
        """
        super().__init__()
        width = config.width
        self.attn = SelfAttention(config)
        self.cross_attn = CrossAttention(config)
        self.ffn = GatedMLP(width, config.hidden)
        self.self_attention_norm1 = WideRMSNorm(width, eps=config.eps)
        self.self_attention_norm2 = WideRMSNorm(width, eps=config.eps)
        self.cross_attention_norm1 = WideRMSNorm(width, eps=config.eps)
        self.cross_attention_norm2 = WideRMSNorm(width, eps=config.eps)
        self.ffn_norm1 = WideRMSNorm(width, eps=config.eps)
        self.ffn_norm2 = WideRMSNorm(width, eps=config.eps)
        self.attention_y_norm = WideRMSNorm(config.text_channels, eps=config.eps)
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        if config.crop:
            self.crop_cond_scales = nn.Parameter(torch.zeros(width))

    def constants(
        self,
        pooled: Float[Tensor, "rows c"],
        crop: Float[Tensor, "one c"] | None,
        text: Float[Tensor, "rows t ct"],
    ) -> BlockConstants:
        """What this block needs for the rows of a run.

        Args:
            pooled: embedding of the pooled text.
            crop: embedding of the crop, where the model has one.
            text: tokens of the text.
        """
        condition = pooled if crop is None else pooled + self.crop_cond_scales * crop
        six = self.ada_lin(condition).unflatten(-1, (6, -1)).transpose(0, 1).unsqueeze(2)
        gammas, scales, shifts = six.chunk(3)
        keys, values = self.cross_attn.keys_values(self.attention_y_norm(text))
        return BlockConstants(torch.cat([gammas, scales + 1, shifts]), keys, values)

    def forward(
        self,
        x: Float[Tensor, "rows l c"],
        constants: BlockConstants,
        mask: Bool[Tensor, "rows 1 1 t"],
        rotation: Rotation,
        attention: Attend,
    ) -> Float[Tensor, "rows l c"]:
        """One block.

        Args:
            x: residual stream.
            constants: of this block.
            mask: True where the text is no padding.
            rotation: of the tokens.
            attention: the softmax attention of the tokens, with its cache where there is one.
        """
        gamma1, gamma2, gain1, gain2, shift1, shift2 = constants.vectors.unbind(0)
        normed = torch.addcmul(shift1, self.self_attention_norm1(x), gain1)
        x = torch.addcmul(x, gamma1, self.self_attention_norm2(self.attn(normed, rotation, attention)))
        crossed = self.cross_attn(self.cross_attention_norm1(x), constants.keys, constants.values, mask)
        x = x + self.cross_attention_norm2(crossed)
        normed = torch.addcmul(shift2, self.ffn_norm1(x), gain2)
        return torch.addcmul(x, gamma2, self.ffn_norm2(self.ffn(normed)))

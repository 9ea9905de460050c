"""Texts of several lengths as one padded batch, and their pooled vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hguide.errors import ShapeError

__all__ = ["PaddedText", "TextPooling", "attend_to_text", "keys_values", "pad"]


@dataclass(frozen=True, eq=False)
class PaddedText:
    """Text features of a batch.

    Attributes:
        features: zeros behind the end of a text.
        mask: True where a token belongs to its text. Attention under this mask equals the packed kernel's.
    """

    features: Float[Tensor, "rows n ct"]
    mask: Bool[Tensor, "rows n"]


def pad(texts: Sequence[Float[Tensor, "_ ct"]], multiple: int = 1) -> PaddedText:
    """One batch of texts, filled up to the longest.

    Args:
        texts: `(tokens, channels)` each, without padding.
        multiple: the length is filled up to one of this number, so that few lengths occur.

    Raises:
        ShapeError: no texts, or one without tokens.
    """
    if not texts or any(text.shape[0] < 1 for text in texts):
        raise ShapeError("a batch of texts has at least one text, each of at least one token.")
    features = nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    features = F.pad(features, (0, 0, 0, -features.shape[1] % multiple))
    lengths = torch.tensor([text.shape[0] for text in texts], device=features.device)
    mask = torch.arange(features.shape[1], device=features.device)[None] < lengths[:, None]
    return PaddedText(features, mask)


def keys_values(
    features: Float[Tensor, "rows n ct"], mat_kv: nn.Linear, v_bias: Float[Tensor, " c"], heads: int
) -> tuple[Float[Tensor, "rows heads n d"], Float[Tensor, "rows heads n d"]]:
    """Keys (without bias) and values of cross attention, head by head.

    Args:
        features: of the texts.
        mat_kv: the fused product; its first half makes the keys.
        v_bias: of the values.
        heads: attention heads.
    """
    bias = torch.cat([torch.zeros_like(v_bias), v_bias])
    fused = F.linear(features.to(mat_kv.weight.dtype), mat_kv.weight, bias)
    keys, values = fused.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    return keys, values


def attend_to_text(
    queries: Float[Tensor, "rows heads l d"],
    keys: Float[Tensor, "rows heads n d"],
    values: Float[Tensor, "rows heads n d"],
    mask: Bool[Tensor, "rows 1 1 n"],
    rounded_to: torch.dtype | None = None,
) -> Float[Tensor, "rows heads l d"]:
    """softmax(q k^T / sqrt(d)) v over the tokens of each row's own text.

    Args:
        queries: of any tokens.
        keys: of the texts.
        values: of the texts.
        mask: True where a row may look.
        rounded_to: a narrower type that queries, keys, values and result are rounded to, as the packed kernel of the
            official program does; the sums stay in the type of the values.
    """
    dtype = rounded_to or values.dtype
    queries, keys, values = (x.to(dtype).to(values.dtype) for x in (queries, keys, values))
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask).to(dtype).to(values.dtype)


class TextPooling(nn.Module):
    """One learnt query per head attends over a text; its output is start token and condition of the norms.

    Source: arXiv 2412.04431, code.
    """

    def __init__(self, text_channels: int, width: int, heads: int) -> None:
        """Make the layer.

        Args:
            text_channels: of the features.
            width: channels C of the result.
            heads: number of queries; `width` is a multiple of it.
        """
        super().__init__()
        self.heads = heads
        self.mat_q = nn.Parameter(torch.zeros(1, heads, width // heads))
        self.mat_kv = nn.Linear(text_channels, 2 * width, bias=False)
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, text: PaddedText, rounded_to: torch.dtype | None = None) -> Float[Tensor, "rows c"]:
        """Pool each text.

        Args:
            text: after its norm.
            rounded_to: see `attend_to_text`.
        """
        keys, values = keys_values(text.features, self.mat_kv, self.v_bias, self.heads)
        queries = self.mat_q.unsqueeze(2).expand(keys.shape[0], -1, -1, -1)
        found = attend_to_text(queries, keys, values, text.mask[:, None, None], rounded_to)
        return self.proj(found.flatten(1))

"""Attention, feed-forward layer and block of VAR, which other families share; what stays between steps is passed in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MLP", "Attend", "Block", "BlockModulation", "SelfAttention", "attend"]

Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""`(queries, keys, values, scale) -> output`, each `(rows, heads, new, head_dim)`; the past comes from the closure."""

_LARGEST_LOG_SCALE = math.log(100.0)
_SMALLEST_NORM = 1e-12


@dataclass(frozen=True)
class BlockModulation:
    """What a block needs and no token changes.

    Attributes:
        vectors: gamma1, gamma2, 1 + scale1, 1 + scale2, shift1, shift2 of every row.
        qkv_bias: query bias, zeros for the keys, value bias.
        query_key_scale: factor of the normalised queries and keys per head; None without l2-norm.
    """

    vectors: Float[Tensor, "six rows 1 c"]
    qkv_bias: Float[Tensor, " three_c"]
    query_key_scale: Float[Tensor, "two heads 1"] | None

    def part(self, first: int, stop: int) -> BlockModulation:
        """The rows from `first` to before `stop`, as a view."""
        return replace(self, vectors=self.vectors[:, first:stop])


def attend(
    queries: Float[Tensor, "rows heads new d"],
    keys: Float[Tensor, "rows heads total d"],
    values: Float[Tensor, "rows heads total d"],
    scale: float,
    mask: Tensor | None = None,
) -> Float[Tensor, "rows heads new d"]:
    """Softmax attention: softmax(scale q k^T + mask) v.

    Args:
        queries: `(rows, heads, new, head_dim)`.
        keys: `(rows, heads, total, head_dim)`; a cache may hold them in another type, which is then computed in.
        values: like the keys.
        scale: factor of the inner products.
        mask: `(new, total)`, True where attention is allowed.

    Returns:
        `(rows, heads, new, head_dim)` in the type of the queries.
    """
    found = F.scaled_dot_product_attention(
        queries.to(values.dtype), keys.to(values.dtype), values, attn_mask=mask, scale=scale
    )
    return found.to(queries.dtype)


class SelfAttention(nn.Module):
    """The products around a multi-head attention, one for q, k, v; keys carry no bias (arXiv 2404.02905, code).

    With l2-norm: q / max(|q|, 1e-12) * exp(min(scale_mul, ln 100)), k / max(|k|, 1e-12), softmax scale 1.
    Without: softmax scale 0.25 / sqrt(head_dim).
    """

    def __init__(self, width: int, heads: int, l2_norm: bool) -> None:
        """Make the layer.

        Args:
            width: channels C.
            heads: attention heads.
            l2_norm: whether queries and keys are normalised.
        """
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        if l2_norm:
            self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4.0)))
        self.l2_norm = l2_norm
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.mat_qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    @property
    def softmax_scale(self) -> float:
        """Factor of the inner products in front of the softmax."""
        return 1.0 if self.l2_norm else 0.25 / math.sqrt(self.head_dim)

    def qkv_bias(self) -> Float[Tensor, " three_c"]:
        """Bias of the fused product: q, zeros for k, v."""
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])

    def query_key_scale(self) -> Float[Tensor, "two heads 1"] | None:
        """Factors of normalised queries and keys per head; None without l2-norm."""
        if not self.l2_norm:
            return None
        query_scale = self.scale_mul_1H11.clamp_max(_LARGEST_LOG_SCALE).exp().view(self.heads, 1)
        return torch.stack([query_scale, torch.ones_like(query_scale)])

    def project(
        self,
        x: Float[Tensor, "rows l c"],
        qkv_bias: Float[Tensor, " three_c"],
        query_key_scale: Float[Tensor, "two heads 1"] | None,
    ) -> tuple[Float[Tensor, "rows heads l d"], Float[Tensor, "rows heads l d"], Float[Tensor, "rows heads l d"]]:
        """Queries, keys and values of the tokens x, as they enter the softmax.

        Args:
            x: `(rows, l, C)`, normalised and modulated.
            qkv_bias: of the fused product.
            query_key_scale: see `BlockModulation`.
        """
        qkv = F.linear(x, self.mat_qkv.weight, qkv_bias).view(*x.shape[:2], 3, self.heads, self.head_dim)
        queries_keys, values = qkv[:, :, :2], qkv[:, :, 2]
        if query_key_scale is not None:
            norms = torch.linalg.vector_norm(queries_keys, dim=-1, keepdim=True)
            queries_keys = queries_keys * (query_key_scale / norms.clamp_min(_SMALLEST_NORM))
        queries, keys = queries_keys.unbind(2)
        return queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)

    def join(self, found: Float[Tensor, "rows heads l d"]) -> Float[Tensor, "rows l c"]:
        """The output product over the heads."""
        return self.proj(found.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers around a GELU (tanh form)."""

    def __init__(self, width: int, hidden: int) -> None:
        """Make the layer.

        Args:
            width: channels C.
            hidden: channels between the layers.
        """
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "rows l c"]) -> Float[Tensor, "rows l c"]:
        """fc2(gelu(fc1 x)), `(rows, l, C)` in and out."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """x += gamma1 Attention(LN(x)(1 + scale1) + shift1); x += gamma2 MLP(LN(x)(1 + scale2) + shift2).

    The six vectors come from the condition: `ada_lin` of the block, or a shared layer plus the table `ada_gss`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        l2_norm: bool = True,
        shared_adaln: bool = False,
        eps: float = 1e-6,
    ) -> None:
        """Make the block.

        Args:
            width: channels C.
            heads: attention heads.
            hidden: hidden channels of the MLP.
            l2_norm: whether queries and keys are normalised.
            shared_adaln: whether the six vectors come from a layer shared by all blocks.
            eps: epsilon of the layer norms.
        """
        super().__init__()
        self.width, self.eps, self.shared_adaln = width, eps, shared_adaln
        if shared_adaln:
            self.ada_gss = nn.Parameter(torch.zeros(1, 1, 6, width))
        self.attn = SelfAttention(width, heads, l2_norm)
        self.ffn = MLP(width, hidden)
        if not shared_adaln:
            self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def modulation(
        self, condition: Float[Tensor, "rows c"], shared: Float[Tensor, "rows 6*c"] | None
    ) -> BlockModulation:
        """What this block needs for the rows of a run.

        Args:
            condition: embedding of the condition.
            shared: output of the shared condition layer, where there is one.

        Returns:
            The constants of this block.
        """
        raw = self.ada_lin(condition) if shared is None else shared
        vectors = raw.view(-1, 6, self.width)
        if shared is not None:
            vectors = vectors + self.ada_gss[0]
        gammas, scales, shifts = vectors.transpose(0, 1).unsqueeze(2).chunk(3)
        return BlockModulation(
            torch.cat([gammas, scales + 1, shifts]), self.attn.qkv_bias(), self.attn.query_key_scale()
        )

    def before(
        self,
        x: Float[Tensor, "rows l c"],
        vectors: Float[Tensor, "six rows 1 c"],
        qkv_bias: Float[Tensor, " three_c"],
        query_key_scale: Float[Tensor, "two heads 1"] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What precedes the softmax attention: norm, modulation, queries, keys and values.

        Args:
            x: residual stream, `(rows, l, C)`.
            vectors: see `BlockModulation`, as the other two.
            qkv_bias: of the fused product.
            query_key_scale: of normalised queries and keys.
        """
        normed = torch.addcmul(vectors[4], F.layer_norm(x, (self.width,), eps=self.eps), vectors[2])
        return self.attn.project(normed, qkv_bias, query_key_scale)

    def after(
        self,
        x: Float[Tensor, "rows l c"],
        found: Float[Tensor, "rows heads l d"],
        vectors: Float[Tensor, "six rows 1 c"],
    ) -> Float[Tensor, "rows l c"]:
        """What follows the softmax attention: its output product, then the feed-forward layer.

        Args:
            x: residual stream at the block's input.
            found: output of the softmax attention.
            vectors: see `BlockModulation`.
        """
        x = torch.addcmul(x, vectors[0], self.attn.join(found))
        normed = torch.addcmul(vectors[5], F.layer_norm(x, (self.width,), eps=self.eps), vectors[3])
        return torch.addcmul(x, vectors[1], self.ffn(normed))

    def forward(
        self, x: Float[Tensor, "rows l c"], constants: BlockModulation, attention: Attend
    ) -> Float[Tensor, "rows l c"]:
        """One block.

        Args:
            x: residual stream, `(rows, l, C)`.
            constants: of this block.
            attention: the softmax attention, with its cache or mask.

        Returns:
            The new residual stream, `(rows, l, C)`.
        """
        vectors = constants.vectors
        # Queries, keys and values are gone before the feed-forward layer, where a block holds the most.
        found = attention(
            *self.before(x, vectors, constants.qkv_bias, constants.query_key_scale), self.attn.softmax_scale
        )
        return self.after(x, found, vectors)

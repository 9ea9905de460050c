"""VAR sampling as it is usually written, with the costs of the official loop: what our speed is held against."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from hguide.backends.attention import Block
from hguide.backends.var.generator import VAR
from hguide.backends.var.transformer import VARTransformer, scale_of_token

__all__ = ["Choose", "OnLogits", "multinomial", "sort_filter", "straightforward_sample"]

_LARGEST_LOG_SCALE = math.log(100.0)

Choose = Callable[[int, Tensor], Tensor]
"""`(scale, probabilities (rows, V)) -> tokens (rows,)`."""

OnLogits = Callable[[int, Tensor, Tensor], None]
"""`(scale, raw logits (2b, l, V), guided logits (b, l, V))`."""


def multinomial(scale: int, probabilities: Float[Tensor, "rows v"]) -> Int[Tensor, " rows"]:
    """One draw per row from torch's global generator."""
    return torch.multinomial(probabilities, 1, replacement=True)[:, 0]


@torch.no_grad()
def straightforward_sample(
    model: VAR,
    labels: Int[Tensor, " b"],
    *,
    strength: float = 1.5,
    top_k: int = 900,
    top_p: float = 0.96,
    choose: Choose = multinomial,
    on_logits: OnLogits | None = None,
) -> Float[Tensor, "b 3 H W"]:
    """Images by the loop as it is usually written (arXiv 2404.02905, reference implementation's costs).

    Modulation is computed again at every scale, the cache grows by concatenation, the filter sorts all V logits, both
    streams run through everything. It stays as it is: an oracle for results and a yardstick for time.

    Args:
        model: a VAR with its tokenizer.
        labels: class of each image.
        strength: s of classifier-free guidance, t = s k/(K-1).
        top_k: candidates kept per token; 0 keeps all.
        top_p: mass of candidates kept per token; 0 keeps all.
        choose: draws the tokens.
        on_logits: sees the logits of each scale.

    Returns:
        `(b, 3, H, W)` in [0, 1].
    """
    transformer, quantize, grid = model.transformer, model.tokenizer.quantize, model.scales[-1].grid
    config, b = transformer.config, len(labels)
    condition = transformer.class_emb(torch.cat([labels, torch.full_like(labels, config.null_label)]))
    positions = transformer.lvl_embed(scale_of_token(config.lengths, condition.device)) + transformer.pos_1LC
    past: list[tuple[Tensor, Tensor] | None] = [None] * config.depth
    x = condition[:, None] + transformer.pos_start + positions[:, : config.lengths[0]]
    latent = torch.zeros(b, config.latent_channels, *grid, device=x.device)
    for scale in model.scales:
        shared = transformer.shared_ada_lin(condition) if config.shared_adaln else None
        for j, block in enumerate(transformer.blocks):
            x, past[j] = _block(block, x, condition, shared, past[j])
        raw = _head(transformer, x, condition)
        t = strength * scale.index / (model.count - 1)
        guided = (1 + t) * raw[:b] - t * raw[b:]
        if on_logits is not None:
            on_logits(scale.index, raw, guided)
        kept = sort_filter(guided, top_k, top_p)
        tokens = choose(scale.index, kept.softmax(-1).flatten(0, 1)).view(b, *scale.grid)
        latent = latent + quantize.contribution(quantize.lookup(tokens), scale.index, model.count, grid)
        if scale.index + 1 < model.count:
            start = config.starts[scale.index + 1]
            words = quantize.next_map(latent, model.scales[scale.index + 1].grid).flatten(2).transpose(1, 2)
            x = transformer.word_embed(words.to(x.dtype)) + positions[:, start : start + words.shape[1]]
            x = x.repeat(2, 1, 1)
    decoded = model.tokenizer.decode_latent(latent.to(model.tokenizer.post_quant_conv.weight.dtype))
    return decoded.float().add(1.0).div(2.0)


def sort_filter(logits: Float[Tensor, "b l v"], top_k: int, top_p: float) -> Float[Tensor, "b l v"]:
    """Top-k, then top-p on what is left, by a full sort of every row; dropped entries are -inf."""
    if top_k > 0:
        threshold = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if top_p > 0:
        ordered, places = logits.sort(dim=-1)
        drop = ordered.softmax(-1).cumsum(-1) <= 1 - top_p
        drop[..., -1:] = False
        logits = logits.masked_fill(drop.scatter(-1, places, drop), -torch.inf)
    return logits


def _block(
    block: Block,
    x: Float[Tensor, "rows l c"],
    condition: Float[Tensor, "rows c"],
    shared: Tensor | None,
    past: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One block with its modulation, and its grown cache."""
    if shared is None:
        six = block.ada_lin(condition).view(-1, 1, 6, block.width)
    else:
        six = shared.view(-1, 1, 6, block.width) + block.ada_gss
    gamma1, gamma2, scale1, scale2, shift1, shift2 = six.unbind(2)
    found, past = _attention(block, _norm(x, block.eps) * (1 + scale1) + shift1, past)
    x = x + gamma1 * found
    return x + gamma2 * block.ffn(_norm(x, block.eps) * (1 + scale2) + shift2), past


def _attention(
    block: Block, x: Float[Tensor, "rows l c"], past: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    attention = block.attn
    bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
    qkv = F.linear(x, attention.mat_qkv.weight, bias)
    shape = (*x.shape[:2], 3, attention.heads, attention.head_dim)
    queries, keys, values = qkv.view(shape).permute(2, 0, 3, 1, 4).unbind(0)
    if attention.l2_norm:
        queries = F.normalize(queries, dim=-1) * attention.scale_mul_1H11.clamp_max(_LARGEST_LOG_SCALE).exp()
        keys = F.normalize(keys, dim=-1)
    if past is not None:
        keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
    found = F.scaled_dot_product_attention(queries, keys, values, scale=attention.softmax_scale)
    return attention.proj(found.transpose(1, 2).reshape(x.shape)), (keys, values)


def _head(
    transformer: VARTransformer, x: Float[Tensor, "rows l c"], condition: Float[Tensor, "rows c"]
) -> Float[Tensor, "rows l v"]:
    scale, shift = transformer.head_nm["ada_lin"](condition)[:, None].chunk(2, dim=-1)
    return transformer.head(_norm(x, transformer.config.eps) * (1 + scale) + shift).float()


def _norm(x: Float[Tensor, "rows l c"], eps: float) -> Float[Tensor, "rows l c"]:
    return F.layer_norm(x, x.shape[-1:], eps=eps)

"""Switti's network against the notes written out token by token, in float64, and against the published sizes."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from tiny_switti import POOLED, SIDES, TOKENS, text, tiny_config, tiny_switti
from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.switti import SCHEDULES, SwittiTransformer, TransformerConfig
from hguide.backends.switti.rope import map_rotation, rotate
from hguide.backends.switti.transformer import Conditioning
from hguide.errors import ConfigError, ShapeError

State = dict[str, Tensor]


def network(**changes: object) -> SwittiTransformer:
    return tiny_switti(**changes).transformer.double()


def conditioning(transformer: SwittiTransformer) -> Conditioning:
    given = text(1)
    rows = given.embedding.double()[None]
    return transformer.conditioning(rows[:, :-1], rows[:, -1, :POOLED], given.mask[None, :-1])


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.zeros(()))


def rms(state: State, name: str, x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * state[f"{name}.weight"]


def centred(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()


def turned(x: Tensor, side: int, heads: int) -> Tensor:
    """Adjacent channels as complex numbers, one token, head and pair after another; x is (l, C)."""
    out, d = x.clone(), x.shape[1] // heads
    for token in range(side * side):
        row, column = divmod(token, side)
        for head in range(heads):
            for pair in range(d // 2):
                place = column if pair < d // 4 else row
                frequency = 10000.0 ** (-4.0 * (pair % (d // 4)) / d)
                angle = place * 128.0 / max(side - 1, 1) * frequency
                at = head * d + 2 * pair
                z = complex(x[token, at].item(), x[token, at + 1].item()) * cmath.exp(1j * angle)
                out[token, at], out[token, at + 1] = z.real, z.imag
    return out


def attended(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    d = queries.shape[1] // heads
    parts = []
    for head in range(heads):
        q, k, v = (each[:, head * d : (head + 1) * d] for each in (queries, keys, values))
        parts.append(torch.softmax(q @ k.T / math.sqrt(d), dim=-1) @ v)
    return torch.cat(parts, dim=-1)


def block_by_hand(state: State, x: Tensor, condition: Tensor, crop: Tensor, words: Tensor, side: int) -> Tensor:
    """One block on one row, nothing of the past; `words` without padding."""
    pooled = condition + state["crop_cond_scales"] * crop
    gamma1, gamma2, scale1, scale2, shift1, shift2 = linear(state, "ada_lin.1", pooled * torch.sigmoid(pooled)).chunk(6)
    queries, keys, values = linear(
        state, "attn.to_qkv", rms(state, "self_attention_norm1", x) * (1 + scale1) + shift1
    ).chunk(3, dim=-1)
    found = attended(turned(centred(queries), side, 2), turned(centred(keys), side, 2), values, 2)
    x = x + rms(state, "self_attention_norm2", linear(state, "attn.proj", found)) * gamma1
    keys, values = linear(state, "cross_attn.to_kv", rms(state, "attention_y_norm", words)).chunk(2, dim=-1)
    queries = linear(state, "cross_attn.to_q", rms(state, "cross_attention_norm1", x))
    found = attended(centred(queries), centred(keys), values, 2)
    x = x + rms(state, "cross_attention_norm2", linear(state, "cross_attn.proj", found))
    inner = rms(state, "ffn_norm1", x) * (1 + scale2) + shift2
    gate = linear(state, "ffn.gate_proj", inner)
    grown = linear(state, "ffn.down_proj", gate * torch.sigmoid(gate) * linear(state, "ffn.up_proj", inner))
    return x + rms(state, "ffn_norm2", grown) * gamma2


@pytest.mark.parametrize("k", [0, 2])
def test_a_scale_is_as_written_out_by_hand(k: int) -> None:
    transformer = network()
    state = transformer.state_dict()
    given = text(1)
    pooled, words = given.embedding[-1, :POOLED].double(), given.embedding[:4].double()
    condition = linear(state, "text_pooler", pooled)
    waves = [2 * math.pi * number * state["crop_embed.weight"] for number in (512.0, 512.0, 0.0, 0.0)]
    crop = linear(state, "crop_proj", torch.cat([torch.cat([each.sin(), each.cos()]) for each in waves]))
    latent = torch.randn(1, 8, SIDES[k], SIDES[k], dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    if k == 0:
        x = condition + state["pos_start"][0, 0] + state["lvl_embed.weight"][0]
        x = x[None]
    else:
        x = linear(state, "word_embed", latent[0].flatten(1).T) + state["lvl_embed.weight"][k]
    for j in range(2):
        own = {
            key.removeprefix(f"blocks.{j}."): value for key, value in state.items() if key.startswith(f"blocks.{j}.")
        }
        x = block_by_hand(own, x, condition, crop, words, SIDES[k])
    scale, shift = linear(state, "head_nm.ada_lin.1", condition * torch.sigmoid(condition)).chunk(2)
    expected = linear(state, "head", centred(x) * (1 + scale) + shift)

    run = conditioning(transformer)
    inputs = run.start if k == 0 else transformer.embed(latent, k)
    hidden = transformer.forward_blocks(inputs, run, k, None)
    found = transformer.forward_head(hidden, run, torch.tensor([0]))
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-8)


def test_the_autoregressive_variant_sees_the_scales_before() -> None:
    """With a cache: attention over all keys so far, against one pass over both scales under a mask."""
    transformer = network(autoregressive=True)
    config, run = transformer.config, conditioning(transformer)
    cache = KeyValueCache(config.depth, 1, config.heads, config.length, config.head_dim, dtype=torch.float64)
    latent = torch.randn(1, 8, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    transformer.forward_blocks(run.start, run, 0, cache)
    stepwise = transformer.forward_blocks(transformer.embed(latent, 1), run, 1, cache)
    assert cache.end == 5

    x = torch.cat([run.start, transformer.embed(latent, 1)], dim=1)
    turns = [transformer.rotation(k) for k in (0, 1)]
    rotation = type(turns[0])(torch.cat([t.cos for t in turns]), torch.cat([t.sin for t in turns]))
    allowed = torch.ones(5, 5, dtype=torch.bool)
    allowed[0, 1:] = False

    def masked(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        scores = (q @ k.transpose(-1, -2) * scale).masked_fill(~allowed, -torch.inf)
        return scores.softmax(-1) @ v

    for block, constants in zip(transformer.blocks, run.blocks, strict=True):
        x = block(x, constants, run.mask, rotation, masked)
    torch.testing.assert_close(stepwise, x[:, 1:], rtol=0, atol=1e-10)
    alone = transformer.forward_blocks(transformer.embed(latent, 1), run, 1, None)
    assert not torch.allclose(alone, stepwise, atol=1e-3)


def test_padding_of_the_text_is_not_seen_and_the_rest_is() -> None:
    transformer = network()
    given = text(1)

    def hidden(rows: Tensor) -> Tensor:
        run = transformer.conditioning(rows[None, :-1], rows[None, -1, :POOLED], given.mask[None, :-1])
        return transformer.forward_blocks(run.start, run, 0, None)

    rows = given.embedding.double()
    padded, shown, pooled = rows.clone(), rows.clone(), rows.clone()
    padded[TOKENS - 1] += 1.0
    shown[2] += 1.0
    pooled[-1, 0] += 1.0
    assert torch.equal(hidden(rows), hidden(padded))
    for other in (shown, pooled):
        assert not torch.allclose(hidden(rows), hidden(other), atol=1e-3)


def test_all_maps_span_the_same_range_and_turning_keeps_lengths() -> None:
    small, large = (map_rotation(side, 16, theta=100.0, size=128.0) for side in (2, 5))
    torch.testing.assert_close(small.cos[[0, 1, 2, 3]], large.cos[[0, 4, 20, 24]])
    x = torch.randn(1, 1, 25, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotate(x, large).norm(dim=-1), x.norm(dim=-1))


def test_the_published_network_has_the_published_size() -> None:
    with torch.device("meta"):
        state = SwittiTransformer(TransformerConfig()).state_dict()
    # Two buffers of the published files are not weights here: lvl_1L and attn_bias_for_masking.
    assert len(state) + 2 == 705
    assert sum(value.numel() for value in state.values()) == pytest.approx(2.471e9, abs=0.5e6)
    assert tuple(state["crop_embed.weight"].shape) == (240,)
    assert tuple(state["blocks.29.ffn.up_proj.weight"].shape) == (5120, 1920)
    assert [sum(side * side for side in SCHEDULES[size]) for size in (512, 1024)] == [2240, 9451]


def test_sizes_that_cannot_work_are_named_together() -> None:
    with pytest.raises(
        ConfigError, match=r"patch_nums grow strictly from 1, given \(2, 2\); depth is positive, given 0"
    ):
        tiny_config(patch_nums=(2, 2), depth=0)
    with pytest.raises(ConfigError, match="heads times a multiple of 4"):
        tiny_config(heads=16)
    with pytest.raises(ShapeError, match=r"scale 1 takes maps of \(8, 2, 2\), given \(8, 3, 3\)"):
        network().embed(torch.zeros(1, 8, 3, 3), 1)

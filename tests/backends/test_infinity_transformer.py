"""The Infinity transformer: text of several lengths, positions, levels, and its configuration."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_infinity import SQUARE, TEXT_CHANNELS, text, tiny_infinity
from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.infinity import InfinityTransformer, ScaleSchedule, TransformerConfig, published_schedule
from hguide.backends.infinity.rope import positions, rope_table, rotate
from hguide.backends.infinity.scale_schedule import SIZES, nearest_ratio, published_ratios
from hguide.backends.infinity.text_pooling import pad
from hguide.errors import ConfigError, ShapeError

GOLDEN = Path(__file__).parents[1] / "golden" / "infinity"


@pytest.fixture(scope="module")
def network() -> InfinityTransformer:
    return tiny_infinity().transformer


# Text


def attention_of_one(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of one sample and head, in float64."""
    weights = (queries.double() @ keys.double().T / math.sqrt(queries.shape[-1])).softmax(-1)
    return (weights @ values.double()).float()


def test_pooling_over_padded_texts_is_pooling_of_each() -> None:
    network = tiny_infinity().transformer
    texts = [text(tokens, tokens).embedding for tokens in (3, 9, 1)]
    pool = network.text_proj_for_sos["ca"]
    pool.proj.weight.data.copy_(torch.eye(32))
    found = pool(network.text_memory(pad(texts)))
    for row, each in enumerate(texts):
        normed = each * each.pow(2).mean(-1, keepdim=True).add(1e-6).rsqrt() * network.text_norm.weight
        keys, values = (normed @ pool.mat_kv.weight.T).chunk(2, dim=-1)
        values = values + pool.v_bias
        for head in range(pool.heads):
            part = slice(head * 32 // pool.heads, (head + 1) * 32 // pool.heads)
            wanted = attention_of_one(pool.mat_q[0, head : head + 1], keys[:, part], values[:, part])
            torch.testing.assert_close(found[row : row + 1, part], wanted, atol=1e-5, rtol=0)


def test_cross_attention_over_padded_texts_is_that_of_each(network: InfinityTransformer) -> None:
    texts = [text(tokens, tokens).embedding for tokens in (2, 11, 5)]
    x = torch.randn(3, 4, 32, generator=torch.Generator().manual_seed(0))
    layer = network.blocks[1].ca
    together = layer(x, network.modulation(pad(texts)).blocks[1])
    for row, each in enumerate(texts):
        alone = layer(x[row : row + 1], network.modulation(pad([each])).blocks[1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)
    memory = network.text_proj_for_ca(network.text_memory(pad(texts[:1])).features)[0]
    queries = layer.mat_q(x[:1])[0]
    keys, values = (memory @ layer.mat_kv.weight.T).chunk(2, dim=-1)
    heads = [
        attention_of_one(*(t[:, part] for t in (queries, keys, values + layer.v_bias)))
        for part in (slice(0, 16), slice(16, 32))
    ]
    torch.testing.assert_close(together[0], layer.proj(torch.cat(heads, dim=-1)), atol=1e-5, rtol=0)


def test_texts_without_tokens_are_refused(network: InfinityTransformer) -> None:
    with pytest.raises(ShapeError, match="at least one token"):
        pad([torch.zeros(0, 3)])
    with pytest.raises(ShapeError, match="at least one text"):
        pad([])
    with pytest.raises(ShapeError, match="up to 12 tokens, got 13"):
        network.null_text(13)


# Steps and training


def test_steps_with_a_cache_are_the_masked_forward(network: InfinityTransformer) -> None:
    texts = [text(3).embedding, text(8, 1).embedding]
    inputs = torch.randn(2, 29, 4, generator=torch.Generator().manual_seed(2))
    whole = network(texts, inputs, SQUARE)
    modulation, rope = network.modulation(pad(texts)), network.rope(SQUARE)
    cache = KeyValueCache(2, 2, 2, 30, 16)
    for k, (start, length) in enumerate(zip(SQUARE.starts, SQUARE.lengths, strict=True)):
        x = network.embed(inputs[:, start - 1 : start - 1 + length]) if k else modulation.start
        part = slice(start, start + length)
        hidden = network.forward_blocks(x, torch.full((length,), k), rope[:, part], modulation, cache)
        torch.testing.assert_close(network.forward_head(hidden, modulation), whole[:, part], atol=1e-5, rtol=0)


def test_a_level_is_added_where_the_configuration_says() -> None:
    model = tiny_infinity().transformer
    model.lvl_embed.weight.data.mul_(10)
    texts, inputs = [text(3).embedding], torch.zeros(1, 29, 4)
    once = model(texts, inputs, SQUARE)
    model.config = replace(model.config, level_every_chunk=True)
    assert not torch.allclose(model(texts, inputs, SQUARE), once, atol=1e-3)
    model.config = replace(model.config, chunks=1)
    assert torch.equal(model(texts, inputs, SQUARE), once)


def test_wrong_inputs_are_refused(network: InfinityTransformer) -> None:
    with pytest.raises(ShapeError, match=r"\(b, L - l0, bits\) = \(1, 29, 4\), given \(1, 28, 4\)"):
        network([text(3).embedding], torch.zeros(1, 28, 4), SQUARE)
    modulation = network.modulation(pad([text(3).embedding]))
    cache = KeyValueCache(2, 2, 2, 30, 16)
    with pytest.raises(ShapeError, match="1 rows of tokens, 1 of modulation, 2 of cache must be equal"):
        network.forward_blocks(modulation.start, torch.zeros(1).long(), torch.zeros(2, 1, 8), modulation, cache)
    with pytest.raises(ShapeError, match="cannot keep 2 rows"):
        modulation.keep(2)


def test_the_scale_of_queries_is_bounded() -> None:
    layer = tiny_infinity().transformer.blocks[0].sa
    layer.scale_mul_1H11.data.copy_(torch.tensor([1.5, 9.0]).view(1, 2, 1, 1))
    torch.testing.assert_close(layer.query_scale().flatten(), torch.tensor([math.exp(1.5), 100.0]))


# Positions


def test_rotation_is_a_product_of_complex_numbers() -> None:
    source = torch.Generator().manual_seed(0)
    x, angles = torch.randn(2, 3, 5, 8, generator=source), torch.randn(5, 4, generator=source)
    table = torch.stack([angles.cos(), angles.sin()])
    turned = torch.view_as_complex(x.unflatten(-1, (4, 2))) * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(rotate(x, table), torch.view_as_real(turned).flatten(-2))


def test_inner_products_depend_on_the_difference_of_positions() -> None:
    table = rope_table([(6, 7)], (6, 7), 16).unflatten(1, (6, 7))
    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(1))

    def product(a: tuple[int, int], b: tuple[int, int]) -> Tensor:
        return (rotate(q, table[:, a[0], a[1]][:, None]) * rotate(k, table[:, b[0], b[1]][:, None])).sum()

    torch.testing.assert_close(product((0, 1), (2, 4)), product((3, 3), (5, 6)), atol=1e-5, rtol=1e-5)
    assert not torch.isclose(product((0, 1), (2, 4)), product((0, 1), (4, 2)), atol=1e-3)


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("run", ["r1.0_1-2-3-5", "r1.5_1-2x1-3x2-6x4"])
def test_tables_are_the_recorded_ones(run: str, mode: int) -> None:
    grids = {"r1.0_1-2-3-5": [(1, 1), (2, 2), (3, 3), (5, 5)], "r1.5_1-2x1-3x2-6x4": [(1, 1), (2, 1), (3, 2), (6, 4)]}[
        run
    ]
    recorded = load_file(GOLDEN / "rope_tables.safetensors")[f"{run}_headdim16_mode{mode}"]
    torch.testing.assert_close(rope_table(grids, grids[-1], 16, mode), recorded, atol=1e-6, rtol=0)


def test_positions_round_half_to_even() -> None:
    assert positions(4, 2).tolist() == [0, 0, 1, 2]
    assert positions(16, 64).tolist() == list(range(0, 64, 4))
    with pytest.raises(ConfigError, match="mode is 0, 1 or 2, got 3"):
        rope_table([(1, 1)], (1, 1), 8, 3)


# Schedules


def test_schedules_are_the_recorded_ones() -> None:
    recorded = json.loads((GOLDEN / "scale_schedules.json").read_text())
    assert {f"{ratio:.3f}" for ratio in published_ratios()} == set(recorded)
    for ratio, sizes in recorded.items():
        assert set(sizes) == set(SIZES)
        for size, facts in sizes.items():
            found = published_schedule(size, float(ratio))
            assert [[1, *grid] for grid in found.grids] == facts["scales_image"]
            assert sum(found.lengths) == facts["num_tokens"]
            assert [16 * side for side in found.grids[-1]] == facts["pixel_hw"]
            assert [1, *found.reference] == recorded[ratio]["1M"]["scales_image"][-1]


@pytest.mark.parametrize(
    ("aspect", "ratio"), [(1.0, 1.0), (16 / 9, 1.75), (9 / 16, 0.571), (100.0, 3.0), (0.01, 0.333)]
)
def test_the_nearest_ratio_is_taken(aspect: float, ratio: float) -> None:
    assert nearest_ratio(aspect) == ratio


def test_schedules_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="no schedule for pictures of size '2M'.*0.06M"):
        published_schedule("2M")
    with pytest.raises(ConfigError, match="positive number, got 0"):
        published_schedule("1M", 0.0)
    with pytest.raises(ConfigError, match="one or more grids"):
        ScaleSchedule(())
    with pytest.raises(ConfigError, match="do not shrink"):
        ScaleSchedule(((2, 2), (3, 1)))


# Configuration


@pytest.mark.parametrize(
    ("width", "heads", "text_channels", "hidden", "text_heads"),
    [(2048, 16, 2048, 8192, 16), (3584, 28, 2048, 14336, 16), (2080, 20, 2048, 8192, 16), (4608, 36, 2048, 18432, 32)],
)
def test_sizes_that_follow(width: int, heads: int, text_channels: int, hidden: int, text_heads: int) -> None:
    config = TransformerConfig(depth=8, width=width, heads=heads, bits=32, text_channels=text_channels)
    assert (config.mlp_width, config.pool_heads) == (hidden, text_heads)


def test_all_wrong_options_are_named_at_once() -> None:
    good: dict[str, Any] = {"depth": 4, "width": 32, "heads": 2, "bits": 4, "text_channels": TEXT_CHANNELS}
    with pytest.raises(ConfigError, match=r"depth must be.*bits must be.*rope_mode is one of.*eps must be"):
        TransformerConfig(**(good | {"depth": 0, "bits": True, "rope_mode": 5, "eps": -1.0}))
    with pytest.raises(ConfigError, match=r"heads times a multiple of 4.*multiple of text_heads.*multiple of chunks"):
        TransformerConfig(**(good | {"heads": 3, "text_heads": 5, "chunks": 3}))

"""The VAR transformer and its laws: cache, rows, attention, gradients."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from hguide.backends.cache import KeyValueCache
from hguide.backends.var.initialise import initialise
from hguide.backends.var.official_buffers import without_buffers
from hguide.backends.var.transformer import TransformerConfig, VARTransformer, block_causal_mask
from hguide.errors import ConfigError, ShapeError

CACHE_TOLERANCE = 3e-5  # cached against masked path, float32 (what the official two paths differ by)
EXACT_TOLERANCE = 1e-12  # the same comparisons in float64

GOLDEN = Path(__file__).parents[1] / "golden" / "var"


def golden_config(name: str) -> TransformerConfig:
    raw = json.loads((GOLDEN / name / "config.json").read_text())
    return TransformerConfig(
        patch_nums=tuple(raw["patch_nums"]),
        depth=raw["depth"],
        width=raw["embed_dim"],
        heads=raw["num_heads"],
        classes=raw["num_classes"],
        vocabulary=raw["vocab_size"],
        latent_channels=raw["z_channels"],
        shared_adaln=raw["shared_aln"],
        l2_norm=raw["attn_l2_norm"],
        mlp_ratio=raw["mlp_ratio"],
        eps=raw["norm_eps"],
    )


def golden_model(name: str) -> VARTransformer:
    config = golden_config(name)
    model = VARTransformer(config)
    model.load_state_dict(without_buffers(load_file(GOLDEN / name / "weights_var.safetensors"), config))
    return model.eval().requires_grad_(False)


def small_model(dtype: torch.dtype = torch.float64, **options: object) -> VARTransformer:
    config = TransformerConfig((1, 2, 3), 2, 24, 3, 5, 11, 4, **options)  # type: ignore[arg-type]
    model = initialise(
        VARTransformer(config).to(dtype), torch.Generator().manual_seed(0), gamma=5.0, adaln=5.0, head=3.0
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype) * 0.3)
    return model.requires_grad_(False)


def small_inputs(model: VARTransformer, samples: int) -> tuple[Tensor, Tensor]:
    config = model.config
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(config.classes + 1, (samples,), generator=generator)
    shape = (samples, config.length - config.lengths[0], config.latent_channels)
    return labels, torch.randn(shape, generator=generator, dtype=torch.float64).to(model.head.weight.dtype)


def new_cache(model: VARTransformer, rows: int, dtype: torch.dtype = torch.float32) -> KeyValueCache:
    config = model.config
    return KeyValueCache(config.depth, rows, config.heads, config.length, config.head_dim, dtype=dtype)


def cached_logits(model: VARTransformer, labels: Tensor, var_input: Tensor, cache: KeyValueCache) -> Tensor:
    config = model.config
    modulation = model.modulation(labels)
    found = []
    for k, (start, length) in enumerate(zip(config.starts, config.lengths, strict=True)):
        begin = start - config.lengths[0]
        x = model.first_input(modulation) if k == 0 else model.embed(var_input[:, begin : begin + length], k)
        found.append(model.forward_head(model.forward_blocks(x, modulation, cache), modulation))
    return torch.cat(found, dim=1)


def assert_near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("l2_norm", [True, False])
@pytest.mark.parametrize("shared_adaln", [True, False])
def test_cached_path_equals_masked_path(l2_norm: bool, shared_adaln: bool) -> None:
    model = small_model(l2_norm=l2_norm, shared_adaln=shared_adaln)
    labels, var_input = small_inputs(model, 3)
    expected = model(labels, var_input)
    assert expected.std() > 0.1
    cached = cached_logits(model, labels, var_input, new_cache(model, 3, torch.float64))
    assert_near(cached, expected, EXACT_TOLERANCE)
    single = copy.deepcopy(model).float()
    found = cached_logits(single, labels, var_input.float(), new_cache(model, 3))
    assert_near(found.double(), expected, CACHE_TOLERANCE)


def test_rows_are_independent() -> None:
    model = small_model()
    labels, var_input = small_inputs(model, 4)
    together = model(labels, var_input)
    for row in range(4):
        assert_near(together[row : row + 1], model(labels[row : row + 1], var_input[row : row + 1]), EXACT_TOLERANCE)


def test_dropping_tail_rows_changes_nothing_for_the_others() -> None:
    model = small_model()
    config = model.config
    labels, var_input = small_inputs(model, 3)
    expected = model(labels, var_input)[:2, config.starts[2] :]
    modulation, cache = model.modulation(labels), new_cache(model, 3, torch.float64)
    model.forward_blocks(model.first_input(modulation), modulation, cache)
    model.forward_blocks(model.embed(var_input[:, :4], 1), modulation, cache)
    cache.keep(2)
    modulation = modulation.keep(2)
    hidden = model.forward_blocks(model.embed(var_input[:2, 4:], 2), modulation, cache)
    assert_near(model.forward_head(hidden, modulation), expected, EXACT_TOLERANCE)


def test_a_map_may_come_as_grid_or_sequence() -> None:
    model = small_model()
    grid = torch.randn(2, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sequence = torch.stack([grid[:, :, i, j] for i in range(3) for j in range(3)], dim=1)
    assert_near(model.embed(grid, 2), model.embed(sequence, 2), EXACT_TOLERANCE)


def naive_logits(model: VARTransformer, label: int, var_input: Tensor) -> Tensor:
    """One sample, one head and one query at a time, from the formulas."""
    config, weights = model.config, {key: value.double() for key, value in model.state_dict().items()}
    scale_of = [k for k, length in enumerate(config.lengths) for _ in range(length)]
    condition = weights["class_emb.weight"][label]
    active = condition * torch.sigmoid(condition)
    words = var_input @ weights["word_embed.weight"].T + weights["word_embed.bias"]
    x = torch.cat([condition + weights["pos_start"][0], words])
    x = x + weights["pos_1LC"][0] + torch.stack([weights["lvl_embed.weight"][k] for k in scale_of])

    def norm(t: Tensor) -> Tensor:
        centred = t - t.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + config.eps).sqrt()

    for j in range(config.depth):
        own = {key.removeprefix(f"blocks.{j}."): value for key, value in weights.items()}
        gamma1, gamma2, scale1, scale2, shift1, shift2 = (
            own["ada_lin.1.weight"] @ active + own["ada_lin.1.bias"]
        ).view(6, -1)
        y = norm(x) * (1 + scale1) + shift1
        projections = own["attn.mat_qkv.weight"].chunk(3)
        q = y @ projections[0].T + own["attn.q_bias"]
        k = y @ projections[1].T
        v = y @ projections[2].T + own["attn.v_bias"]
        out = torch.zeros_like(y)
        for head in range(config.heads):
            part = slice(head * config.head_dim, (head + 1) * config.head_dim)
            for i, scale in enumerate(scale_of):
                seen = [m for m, other in enumerate(scale_of) if other <= scale]
                energy = (k[seen, part] @ q[i, part]) * 0.25 / math.sqrt(config.head_dim)
                out[i, part] = torch.softmax(energy, 0) @ v[seen, part]
        x = x + gamma1 * (out @ own["attn.proj.weight"].T + own["attn.proj.bias"])
        y = norm(x) * (1 + scale2) + shift2
        h = y @ own["ffn.fc1.weight"].T + own["ffn.fc1.bias"]
        h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        x = x + gamma2 * (h @ own["ffn.fc2.weight"].T + own["ffn.fc2.bias"])
    scale, shift = (weights["head_nm.ada_lin.1.weight"] @ active + weights["head_nm.ada_lin.1.bias"]).chunk(2)
    return (norm(x) * (1 + scale) + shift) @ weights["head.weight"].T + weights["head.bias"]


def test_without_l2_norm_matches_a_naive_transformer() -> None:
    model = small_model(l2_norm=False)
    assert not any(key.endswith("scale_mul_1H11") for key in model.state_dict())
    labels, var_input = small_inputs(model, 2)
    expected = torch.stack([naive_logits(model, int(label), z) for label, z in zip(labels, var_input, strict=True)])
    assert_near(model(labels, var_input), expected, 1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_stays_near(dtype: torch.dtype) -> None:
    exact = golden_model("adaln")
    labels, var_input = small_inputs(exact, 2)
    expected = exact(labels, var_input)
    model = copy.deepcopy(exact).to(dtype)
    cached = cached_logits(model, labels, var_input, new_cache(model, 2, dtype))
    masked = model(labels, var_input)
    for found in (cached, masked):
        assert found.dtype == torch.float32
        assert (found - expected).std() < 0.1 * expected.std()


def test_autocast_runs() -> None:
    model = golden_model("adaln")
    labels, var_input = small_inputs(model, 2)
    expected = model(labels, var_input)
    with torch.autocast("cpu", torch.bfloat16):
        found = cached_logits(model, labels, var_input, new_cache(model, 2, torch.bfloat16))
    assert (found - expected).std() < 0.1 * expected.std()


def test_a_perturbed_stream_replaces_attention() -> None:
    model = small_model()
    labels, var_input = small_inputs(model, 2)
    calls = []

    def identity_map(layer: int, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        calls.append((layer, scale))
        plain = F.scaled_dot_product_attention(queries[:1], keys[:1], values[:1], scale=scale)
        return torch.cat([plain, values[1:, :, -queries.shape[2] :]])

    modulation, cache = model.modulation(labels), new_cache(model, 2, torch.float64)
    model.forward_blocks(model.first_input(modulation), modulation, cache)
    hidden = model.forward_blocks(model.embed(var_input[:, :4], 1), modulation, cache, layer_attend=identity_map)
    assert calls == [(0, 1.0), (1, 1.0)]
    start, stop = model.config.starts[1], model.config.starts[2]
    expected = model(labels, var_input)[:, start:stop]
    found = model.forward_head(hidden, modulation)
    assert_near(found[0], expected[0], EXACT_TOLERANCE)
    assert (found[1] - expected[1]).abs().max() > 1e-3


def test_on_block_may_skip_blocks_for_some_rows() -> None:
    model = small_model()
    labels, _ = small_inputs(model, 2)
    modulation = model.modulation(labels)
    x = model.first_input(modulation)

    def skip_second_row(block: int, before: Tensor, after: Tensor) -> Tensor:
        return torch.cat([after[:1], before[1:]])

    hidden = model.forward_blocks(x, modulation, new_cache(model, 2, torch.float64), on_block=skip_second_row)
    assert torch.equal(hidden[1], x[1])
    assert not torch.equal(hidden[0], x[0])


def test_an_exception_leaves_the_past_as_it_was() -> None:
    model = small_model()
    labels, var_input = small_inputs(model, 2)
    modulation, cache = model.modulation(labels), new_cache(model, 2, torch.float64)
    model.forward_blocks(model.first_input(modulation), modulation, cache)
    x = model.embed(var_input[:, :4], 1)

    def fail(block: int, before: Tensor, after: Tensor) -> Tensor:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        model.forward_blocks(x, modulation, cache, on_block=fail)
    hidden = model.forward_blocks(x, modulation, cache)
    start, stop = model.config.starts[1], model.config.starts[2]
    expected = model(labels, var_input)[:, start:stop]
    assert_near(model.forward_head(hidden, modulation), expected, EXACT_TOLERANCE)


def test_all_weights_get_gradients_and_training_lowers_the_loss() -> None:
    config = TransformerConfig((1, 2, 3), 2, 24, 3, 5, 11, 4, shared_adaln=True)
    model = initialise(VARTransformer(config), torch.Generator().manual_seed(0))
    labels, var_input = small_inputs(model, 8)
    tokens = torch.randint(11, (8, config.length), generator=torch.Generator().manual_seed(3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(model(labels, var_input).flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(11), abs=0.01)
    assert losses[-1] < 0.5 * losses[0]


def test_initial_weights_depend_on_the_generator_alone() -> None:
    config = TransformerConfig((1, 2), 2, 96, 3, 5, 11, 4)
    first, second = (initialise(VARTransformer(config), torch.Generator().manual_seed(7)) for _ in range(2))
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name))
    block = first.blocks[0]
    std = math.sqrt(1 / (3 * 96)) * 0.88  # a normal cut at two standard deviations
    assert block.attn.mat_qkv.weight.std().item() == pytest.approx(std, rel=0.05)
    assert block.ffn.fc2.weight.std().item() == pytest.approx(std / 2, rel=0.05)
    assert block.ada_lin[1].weight[: 2 * 96].std().item() == pytest.approx(1e-3 * std, rel=0.05)
    assert block.ada_lin[1].weight[2 * 96 :].std().item() == pytest.approx(0.5 * std, rel=0.05)
    assert block.attn.scale_mul_1H11.flatten().tolist() == pytest.approx([math.log(4)] * 3)


def test_block_causal_mask() -> None:
    level = torch.tensor([0, 1, 1, 1, 1, 2, 2])
    expected = torch.tensor([[bool(level[i] >= level[j]) for j in range(7)] for i in range(7)])
    assert torch.equal(block_causal_mask((1, 4, 2)), expected)


def test_config_names_all_problems_at_once() -> None:
    with pytest.raises(ConfigError, match=r"patch_nums.*depth.*width must be a multiple.*eps"):
        TransformerConfig((1, 2, 2), 0, 10, 3, 5, 11, 4, eps=0.0)


def test_config_derives_lengths() -> None:
    config = TransformerConfig((1, 2, 3), 2, 24, 3, 5, 11, 4)
    assert (config.lengths, config.starts, config.length) == ((1, 4, 9), (0, 1, 5), 14)
    assert (config.grids, config.head_dim, config.hidden) == (((1, 1), (2, 2), (3, 3)), 8, 96)


def test_wrong_shapes_are_refused() -> None:
    model = small_model()
    labels, var_input = small_inputs(model, 2)
    modulation = model.modulation(labels)
    with pytest.raises(ShapeError, match=r"scale 2 takes \(tokens, channels\) = \(9, 4\)"):
        model.embed(torch.zeros(2, 4, 2, 2), 2)
    with pytest.raises(ShapeError, match=r"var_input must be .* = \(2, 13, 4\)"):
        model(labels, var_input[:, 1:])
    with pytest.raises(ShapeError, match="3 of cache must be equal"):
        model.forward_blocks(model.first_input(modulation), modulation, new_cache(model, 3, torch.float64))
    with pytest.raises(ShapeError, match="cannot keep 3 rows"):
        modulation.keep(3)

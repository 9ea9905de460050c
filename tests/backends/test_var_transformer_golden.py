"""The VAR transformer against recordings of the official one: outputs, keys, shapes and buffers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.var.official_buffers import official_buffers, without_buffers
from hguide.backends.var.transformer import TransformerConfig, VARTransformer
from hguide.errors import CheckpointError

INPUT_TOLERANCE = 1e-5  # x_in
GOLDEN_TOLERANCE = 5e-5  # block outputs, raw logits: the strict one, which sees a wrong eps

GOLDEN = Path(__file__).parents[1] / "golden" / "var"
CASES = ["adaln", "saln"]
MANIFESTS = ["d16", "d20", "d24", "d30", "d36_512"]


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


def new_cache(model: VARTransformer, rows: int, dtype: torch.dtype = torch.float32) -> KeyValueCache:
    config = model.config
    return KeyValueCache(config.depth, rows, config.heads, config.length, config.head_dim, dtype=dtype)


def assert_near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_teacher_forced_replay_matches_the_official_network(name: str, dtype: torch.dtype) -> None:
    model, case = golden_model(name).to(dtype), load_file(GOLDEN / name / "case.safetensors")
    labels = case["labels"]
    samples = len(labels)
    modulation = model.modulation(torch.cat([labels, torch.full_like(labels, model.config.null_label)]))
    cache = new_cache(model, 2 * samples, dtype)
    seen: list[Tensor] = []

    def record(block: int, before: Tensor, after: Tensor) -> Tensor:
        seen.append(after.float())
        return after

    for k in range(len(model.config.patch_nums)):
        x = model.first_input(modulation) if k == 0 else model.embed(case[f"s{k - 1}.next_map"], k).repeat(2, 1, 1)
        assert_near(x.float(), case[f"s{k}.x_in"], INPUT_TOLERANCE)
        seen.clear()
        hidden = model.forward_blocks(x, modulation, cache, on_block=record)
        for j, found in enumerate(seen):
            assert_near(found, case[f"s{k}.block{j}_out"], GOLDEN_TOLERANCE)
        assert len(seen) == model.config.depth
        cond = model.forward_head(hidden, modulation, slice(0, samples))
        uncond = model.forward_head(hidden, modulation, torch.arange(samples, 2 * samples))
        assert_near(cond.float(), case[f"s{k}.logits_cond"], GOLDEN_TOLERANCE)
        assert_near(uncond.float(), case[f"s{k}.logits_uncond"], GOLDEN_TOLERANCE)
    assert cache.end == model.config.length


@pytest.mark.parametrize("name", CASES)
def test_masked_forward_matches_the_official_network(name: str) -> None:
    model, case = golden_model(name), load_file(GOLDEN / name / "case.safetensors")
    assert_near(model(case["labels"], case["tf.var_input"]), case["tf.logits"], GOLDEN_TOLERANCE)


@pytest.mark.parametrize("name", MANIFESTS)
def test_official_keys_and_shapes(name: str) -> None:
    manifest = {key: tuple(shape) for key, shape in json.loads((GOLDEN / f"manifest_{name}.json").read_text()).items()}
    depth = int(name[1:3])
    large = name.endswith("512")
    sides = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32) if large else (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    config = TransformerConfig(sides, depth, 64 * depth, depth, 1000, 4096, 32, shared_adaln=large)
    with torch.device("meta"):
        model = VARTransformer(config)
    weights = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert weights | official_buffers(config) == manifest
    assert not weights.keys() & official_buffers(config).keys()
    assert set(weights) == {key for key, _ in model.named_parameters()}


@pytest.mark.parametrize("name", CASES)
def test_files_without_buffers_load(name: str) -> None:
    config, state = golden_config(name), load_file(GOLDEN / name / "weights_var.safetensors")
    bare = {key: tensor for key, tensor in state.items() if key not in official_buffers(config)}
    assert len(bare) < len(state)
    VARTransformer(config).load_state_dict(without_buffers(bare, config))


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("lvl_1L", lambda t: t.flip(1), "other patch_nums"),
        ("attn_bias_for_masking", lambda t: t[:, :, 1:], r"attn_bias_for_masking has shape \(1, 1, 38, 39\)"),
        ("blocks.1.attn.zero_k_bias", lambda t: t + 1, "blocks.1.attn.zero_k_bias is not zero"),
    ],
)
def test_buffers_of_another_network_are_refused(key: str, change, message: str) -> None:
    state = load_file(GOLDEN / "adaln" / "weights_var.safetensors")
    state[key] = change(state[key])
    with pytest.raises(CheckpointError, match=message):
        without_buffers(state, golden_config("adaln"))

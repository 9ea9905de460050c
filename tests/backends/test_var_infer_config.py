"""Model sizes read off weights, of the published models and of small ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hguide.backends.checkpoints import check_keys, load_into, read_state_dict
from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.var.infer_config import infer_tokenizer_config, infer_transformer_config
from hguide.backends.var.tokenizer import UNUSED_KEYS, TokenizerConfig, VARTokenizer
from hguide.backends.var.transformer import VARTransformer
from hguide.errors import CheckpointError

GOLDEN = Path(__file__).parents[1] / "golden" / "var"
SCHEDULE = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
SCHEDULE_512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)


def meta(name):
    shapes = json.loads((GOLDEN / name).read_text())
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "depth", "patch_nums"),
    [
        ("d16", 16, SCHEDULE),
        ("d20", 20, SCHEDULE),
        ("d24", 24, SCHEDULE),
        ("d30", 30, SCHEDULE),
        ("d36_512", 36, SCHEDULE_512),
    ],
)
@pytest.mark.parametrize("levels", [True, False])
def test_published_transformers_are_recognised(name, depth, patch_nums, levels):
    state = meta(f"manifest_{name}.json")
    if levels:
        state["lvl_1L"] = torch.cat([torch.full((p * p,), k) for k, p in enumerate(patch_nums)]).view(1, -1)
    else:
        del state["lvl_1L"]
    config = infer_transformer_config(state)
    assert config.patch_nums == patch_nums
    assert (config.depth, config.width, config.heads) == (depth, 64 * depth, depth)
    assert (config.classes, config.vocabulary, config.latent_channels) == (1000, 4096, 32)
    assert (config.l2_norm, config.shared_adaln, config.mlp_ratio) == (True, name == "d36_512", 4.0)


@pytest.mark.parametrize("run", ["adaln", "saln"])
def test_small_transformers_are_recognised_by_their_levels(run):
    wanted = json.loads((GOLDEN / run / "config.json").read_text())
    state = load_file(GOLDEN / run / "weights_var.safetensors")
    config = infer_transformer_config(state)
    assert list(config.patch_nums) == wanted["patch_nums"]
    assert (config.depth, config.width, config.heads) == (wanted["depth"], wanted["embed_dim"], wanted["num_heads"])
    assert (config.classes, config.vocabulary) == (wanted["num_classes"], wanted["vocab_size"])
    assert (config.latent_channels, config.shared_adaln) == (wanted["z_channels"], wanted["shared_aln"])
    del state["lvl_1L"]
    assert infer_transformer_config(state, tuple(wanted["patch_nums"])) == config
    with pytest.raises(CheckpointError, match=r"do not tell their schedule.*pass patch_nums"):
        infer_transformer_config(state)
    with pytest.raises(CheckpointError, match=r"patch_nums \(1, 2\) have 2 and 5"):
        infer_transformer_config(state, (1, 2))


def test_plain_attention_has_heads_of_64_channels_unless_told():
    state = {name: value for name, value in meta("manifest_d16.json").items() if "scale_mul" not in name}
    config = infer_transformer_config(state)
    assert (config.l2_norm, config.heads) == (False, 16)
    assert infer_transformer_config(state, heads=8).heads == 8
    with pytest.raises(CheckpointError, match="multiple of heads"):
        infer_transformer_config(state, heads=7)


def test_the_published_tokenizer_is_recognised():
    assert infer_tokenizer_config(meta("manifest_vae.json")) == TokenizerConfig()
    assert infer_tokenizer_config(meta("manifest_vae.json"), SCHEDULE_512).patch_nums == SCHEDULE_512


def test_a_small_tokenizer_is_recognised_and_loaded_strictly():
    state = read_state_dict(GOLDEN / "adaln" / "weights_vae.safetensors")
    config = infer_tokenizer_config(state, (1, 2, 3, 5))
    assert config == TokenizerConfig(AutoencoderConfig(32, (1, 1, 2), 1, 8), 64, (1, 2, 3, 5))
    with torch.device("meta"):
        module = VARTokenizer(config)
    load_into(module, state, UNUSED_KEYS)
    assert module.decode([torch.zeros(1, p, p, dtype=torch.int64) for p in config.patch_nums]).isfinite().all()
    with pytest.raises(CheckpointError, match=r"unexpected: quantize\.ema_vocab_hit_SV"):
        load_into(module, state)


def test_weights_of_the_other_half_are_told_apart():
    with pytest.raises(CheckpointError, match=r"not the weights of a VAR transformer: 'pos_start' is missing"):
        infer_transformer_config(meta("manifest_vae.json"))
    with pytest.raises(CheckpointError, match=r"not the weights of a VAR tokenizer: 'encoder.conv_in.weight'"):
        infer_tokenizer_config(meta("manifest_d16.json"))
    with pytest.raises(CheckpointError, match="4 dimensions, found"):
        infer_tokenizer_config({"encoder.conv_in.weight": torch.zeros(3)})


def test_widths_that_no_tokenizer_has_are_refused():
    state = meta("manifest_vae.json")
    state["encoder.conv_in.weight"] = torch.empty(96, 3, 3, 3, device="meta")
    with pytest.raises(CheckpointError, match="no multiples of its first, 96"):
        infer_tokenizer_config(state)


def test_heads_that_the_weights_tell_are_not_overruled():
    state = meta("manifest_d16.json")
    assert infer_transformer_config(state, heads=16).heads == 16
    with pytest.raises(CheckpointError, match="The weights have 16 heads, asked for 8"):
        infer_transformer_config(state, heads=8)


def test_a_missing_scale_of_one_block_is_named_by_its_own_name():
    state = meta("manifest_d16.json")
    del state["blocks.0.attn.scale_mul_1H11"]
    config = infer_transformer_config(state)
    assert config.l2_norm
    with torch.device("meta"):
        wanted = VARTransformer(config).state_dict()
    with pytest.raises(CheckpointError, match=r"missing: blocks\.0\.attn\.scale_mul_1H11"):
        check_keys({name: value.shape for name, value in wanted.items()}, state, ("lvl_1L", "attn_bias*"))

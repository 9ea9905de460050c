"""One number off by a percent, another input or another setting is seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from spoiling import edit_config, edit_tensors
from torch import Tensor

from hguide.experiments.parity.report import MISS
from hguide.experiments.parity.run import parity

GOLDEN = Path(__file__).parents[2] / "golden" / "var"
LN_100 = math.log(100.0)


TRANSFORMER_GROUPS = {
    "word_embed": ("word_embed.weight", "word_embed.bias"),
    "pos_start": ("pos_start",),
    "pos_1LC": ("pos_1LC",),
    "lvl_embed": ("lvl_embed.weight",),
    "class_emb": ("class_emb.weight",),
    "qkv": ("blocks.1.attn.mat_qkv.weight",),
    "q_bias": ("blocks.2.attn.q_bias",),
    "v_bias": ("blocks.0.attn.v_bias",),
    "scale_mul": ("blocks.1.attn.scale_mul_1H11",),
    "proj": ("blocks.2.attn.proj.weight", "blocks.0.attn.proj.bias"),
    "fc1": ("blocks.1.ffn.fc1.weight", "blocks.2.ffn.fc1.bias"),
    "fc2": ("blocks.0.ffn.fc2.weight", "blocks.1.ffn.fc2.bias"),
    "ada_lin": ("blocks.2.ada_lin.1.weight", "blocks.0.ada_lin.1.bias"),
    "head_nm": ("head_nm.ada_lin.1.weight", "head_nm.ada_lin.1.bias"),
    "head": ("head.weight", "head.bias"),
}
SHARED_GROUPS = {
    "ada_gss": ("blocks.1.ada_gss",),
    "shared_ada_lin": ("shared_ada_lin.1.weight", "shared_ada_lin.1.bias"),
}
TOKENIZER_GROUPS = {
    "encoder": ("encoder.conv_in.weight", "encoder.mid.attn_1.proj_out.weight", "encoder.norm_out.weight"),
    "decoder": ("decoder.conv_in.weight", "decoder.up.1.block.0.conv2.weight", "decoder.conv_out.bias"),
    "quant_conv": ("quant_conv.weight", "quant_conv.bias"),
    "post_quant_conv": ("post_quant_conv.weight", "post_quant_conv.bias"),
    "embedding": ("quantize.embedding.weight",),
    "qresi": tuple(f"quantize.quant_resi.qresi_ls.{j}.{part}" for j in range(4) for part in ("weight", "bias")),
}


def one_percent(name: str, weight: Tensor, case: Mapping[str, Tensor]) -> Tensor:
    """The largest number of a tensor times 1.01, among those that the recorded run reads at all."""
    sizes = weight.abs()
    if name == "class_emb.weight":
        sizes = keep_rows(sizes, case["labels"])
    if name == "quantize.embedding.weight":
        sizes = keep_rows(sizes, torch.cat([v.flatten() for n, v in case.items() if n.endswith(".tokens")]))
    if name.endswith("scale_mul_1H11"):
        sizes = sizes.masked_fill(weight > LN_100, 0.0)  # clamped there
    changed = weight.clone()
    changed.view(-1)[sizes.argmax()] *= 1.01
    return changed


def keep_rows(sizes: Tensor, rows: Tensor) -> Tensor:
    kept = torch.zeros_like(sizes)
    kept[rows] = sizes[rows]
    return kept


@pytest.mark.parametrize(
    ("folder", "weights", "case", "name"),
    [
        *(("adaln", "weights_var", "case", name) for names in TRANSFORMER_GROUPS.values() for name in names),
        *(("saln", "weights_var", "case", name) for names in SHARED_GROUPS.values() for name in names),
        *(("adaln", "weights_vae", "vae_case", name) for names in TOKENIZER_GROUPS.values() for name in names),
    ],
)
def test_one_number_off_by_a_percent_is_seen(copy: Path, folder: str, weights: str, case: str, name: str) -> None:
    recorded = load_file(copy / folder / f"{case}.safetensors")
    path = copy / folder / f"{weights}.safetensors"
    edit_tensors(path, lambda state: {**state, name: one_percent(name, state[name], recorded)})
    found = parity(copy, only=[f"{folder}/{case}"])
    assert not found.ok
    assert found.of(MISS)


def test_the_groups_are_all_there_are() -> None:
    groups = {**TRANSFORMER_GROUPS, **SHARED_GROUPS, **TOKENIZER_GROUPS}
    for folder, file in (("adaln", "weights_var"), ("saln", "weights_var"), ("adaln", "weights_vae")):
        for name in load_file(GOLDEN / folder / f"{file}.safetensors"):
            if not name.endswith(("lvl_1L", "attn_bias_for_masking", "zero_k_bias", "ema_vocab_hit_SV")):
                assert any(group in name for group in groups), name


@pytest.mark.parametrize(
    ("case", "name", "place"),
    [("smooth", "s2.exp_noise", (0, 3)), ("edit", "image_in", (0, 0)), ("case", "s2.tokens", (1, 4))],
)
def test_another_input_is_seen(copy: Path, case: str, name: str, place: tuple[int, int]) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        value = tensors[name].clone()
        value[place] = value[place].flip(0) * 2 if value.is_floating_point() else (value[place] + 1) % 64
        return {**tensors, name: value}

    edit_tensors(copy / "adaln" / f"{case}.safetensors", change)
    assert not parity(copy, only=[f"adaln/{case}"]).ok


@pytest.mark.parametrize(
    "setting", [{"norm_eps": 1e-5}, {"quant_resi": 0.505}, {"sampling": {"cfg": 1.51, "top_k": 20, "top_p": 0.9}}]
)
def test_another_setting_is_seen(copy: Path, setting: dict[str, object]) -> None:
    edit_config(copy / "adaln", **setting)
    assert not parity(copy, only=["adaln/case"]).ok


# A directory of the user's own

"""Recorded runs of Infinity: they pass, every tensor is accounted for, and one number off by a percent is seen."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from spoiling import edit_config, edit_tensors
from torch import Tensor

from hguide.experiments.parity.infinity_case import FED_BACK, INPUT
from hguide.experiments.parity.report import MISS, NOT_COMPARED, OK, Report
from hguide.experiments.parity.run import parity

GOLDEN = Path(__file__).parents[2] / "golden" / "infinity"
CASE = "case_a_default_cfg"
TRAINING = "bsc_training_plain"
LN_100 = math.log(100.0)
BUFFERS = ("zero_k_bias", "lfq.mask")


@pytest.fixture(scope="module")
def report() -> Report:
    return parity(GOLDEN)


def test_the_golden_runs_pass(report: Report) -> None:
    assert report.ok, report.text()
    passed = {each.case for each in report.comparisons if each.verdict == OK}
    weights = {"plain_transformer", "plain_vae", "patchify_transformer", "patchify_vae", "config"}
    assert passed == {path.stem for path in GOLDEN.iterdir()} - weights


def check_accounts(report: Report, folder: Path) -> None:
    """Each recorded tensor is compared, but for the inputs."""
    for path in folder.glob("*.safetensors"):
        if path.stem.startswith(("plain_", "patchify_")):
            continue
        rows = {each.quantity: each for each in report.comparisons if each.case == path.stem}
        assert set(rows) == set(load_file(path)), path.stem
        left = {name: each.reason for name, each in rows.items() if each.verdict == NOT_COMPARED}
        for name, reason in left.items():
            if path.stem == "case_a_bf16_crossattn":
                assert name.endswith(".bits_sampled")
                assert reason == FED_BACK
            else:
                inputs = ("kv_compact", "cu_seqlens_k", "noisy_input_bits", "image_in", "enc_h")
                assert name.endswith(inputs), (path.stem, name)
                assert reason == INPUT


def test_every_recorded_tensor_is_accounted_for(report: Report) -> None:
    check_accounts(report, GOLDEN)
    compared = {each.case for each in report.comparisons if each.quantity == "enc_h" and each.verdict == OK}
    assert compared == {"vae_roundtrip_patchify", "vae_roundtrip_plain"}


def test_manifests_count_their_keys(report: Report) -> None:
    counts = {}
    for each in report.comparisons:
        if each.case.startswith("manifest"):
            counts[each.case] = counts.get(each.case, 0) + each.tensors
    assert counts == {path.stem: len(json.loads(path.read_text())) for path in GOLDEN.glob("manifest_*.json")}


def test_pictures_and_sampled_bits_are_among_what_is_compared(report: Report) -> None:
    for case in ("case_a_default_cfg", "case_e_patchify"):
        assert {each.quantity for each in report.of(OK) if each.case == case} >= {"image_float", "s1.bits_sampled"}


def test_rounding_of_the_attention_to_text_is_seen(report: Report, copy: Path) -> None:
    """Within what rounding near a tie may do; without the rounding the logits are farther off."""

    def worst(found: Report) -> float:
        errors = [
            each.error or 0.0
            for each in found.comparisons
            if each.case == "case_a_bf16_crossattn" and "_cond" in each.quantity
        ]
        return max(errors)

    assert worst(report) < 2e-3
    config = json.loads((copy / "config.json").read_text())
    config["cases"]["case_a_bf16_crossattn"]["note"] = ""
    edit_config(copy, **config)
    found = parity(copy, only=["case_a_bf16_crossattn"])
    assert not found.ok
    assert worst(found) > 3e-3


# Sensitivity


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the plain transformer and the tokenizer with patches need, to be changed."""
    for name in (
        *("config.json", "plain_transformer.safetensors", "patchify_vae.safetensors", f"{CASE}.safetensors"),
        *("vae_roundtrip_patchify.safetensors", "case_a_bf16_crossattn.safetensors", "case_d_nocfg_gtleak.safetensors"),
        *("vae_roundtrip_plain.safetensors", "case_b_layer_cfg.safetensors", f"{TRAINING}.safetensors"),
    ):
        (tmp_path / name).write_bytes((GOLDEN / name).read_bytes())
    return tmp_path


FIRST, SECOND = "block_chunks.0.module.0", "block_chunks.1.module.1"
TRANSFORMER_GROUPS = {
    "pos_start": ("pos_start",),
    "text_norm": ("text_norm.weight",),
    "text_proj_for_sos.ca": tuple(
        f"text_proj_for_sos.ca.{part}" for part in ("mat_q", "mat_kv.weight", "v_bias", "proj.weight", "proj.bias")
    ),
    "text_proj_for_ca": tuple(f"text_proj_for_ca.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")),
    "lvl_embed": ("lvl_embed.weight",),
    "word_embed": ("word_embed.weight", "word_embed.bias"),
    "shared_ada_lin": ("shared_ada_lin.1.weight", "shared_ada_lin.1.bias"),
    "head_nm": ("head_nm.ada_lin.1.weight", "head_nm.ada_lin.1.bias"),
    "head": ("head.weight", "head.bias"),
    "ada_gss": (f"{SECOND}.ada_gss",),
    ".sa.": tuple(
        f"{FIRST}.sa.{part}"
        for part in ("scale_mul_1H11", "mat_qkv.weight", "q_bias", "v_bias", "proj.weight", "proj.bias")
    ),
    ".ca.": tuple(
        f"{SECOND}.ca.{part}"
        for part in ("mat_q.weight", "mat_q.bias", "mat_kv.weight", "v_bias", "proj.weight", "proj.bias")
    ),
    ".ca_norm.": (f"{FIRST}.ca_norm.weight", f"{SECOND}.ca_norm.bias"),
    ".ffn.": tuple(f"{SECOND}.ffn.{layer}.{part}" for layer in ("fc1", "fc2") for part in ("weight", "bias")),
}
TOKENIZER_GROUPS = {
    "encoder": (
        *("encoder.conv_in.conv.weight", "encoder.down.1.block.0.conv1.conv.weight"),
        *("encoder.mid.block_2.norm1.norm.weight", "encoder.conv_out.conv.bias"),
    ),
    "decoder": (
        *("decoder.conv_in.conv.weight", "decoder.up.1.upsample.conv.conv.weight"),
        *("decoder.norm_out.norm.bias", "decoder.conv_out.conv.bias"),
    ),
}


def one_percent(name: str, weight: Tensor) -> Tensor:
    """The largest number of a tensor times 1.01, among those that the recorded run reads at all."""
    sizes = weight.abs().clone()
    if name == "cfg_uncond":
        sizes[7:] = 0.0  # rows behind the longest prompt
    if name == "lvl_embed.weight":
        sizes[4:] = 0.0  # scales that the run does not have
    if name.endswith("scale_mul_1H11"):
        sizes[weight > LN_100] = 0.0  # clamped there
    changed = weight.clone()
    changed.view(-1)[sizes.argmax()] *= 1.01
    return changed


@pytest.mark.parametrize(
    ("weights", "case", "name"),
    [
        ("plain_transformer", CASE, "cfg_uncond"),
        # One pass over all scales, in place of a pass for each.
        *(("plain_transformer", TRAINING, name) for names in TRANSFORMER_GROUPS.values() for name in names),
        *(("patchify_vae", "vae_roundtrip_patchify", name) for names in TOKENIZER_GROUPS.values() for name in names),
    ],
)
def test_one_number_off_by_a_percent_is_seen(copy: Path, weights: str, case: str, name: str) -> None:
    edit_tensors(copy / f"{weights}.safetensors", lambda state: {**state, name: one_percent(name, state[name])})
    found = parity(copy, only=[case])
    assert not found.ok
    assert found.of(MISS)


def test_the_groups_are_all_there_are() -> None:
    transformer = {**TRANSFORMER_GROUPS, "cfg_uncond": ()}
    for file, groups in (("plain_transformer", transformer), ("patchify_vae", TOKENIZER_GROUPS)):
        for name in load_file(GOLDEN / f"{file}.safetensors"):
            assert name.endswith(BUFFERS) or any(group in name for group in groups), name


@pytest.mark.parametrize(
    ("case", "setting"),
    [
        (CASE, {"cfg_list": [3.0, 3.5, 4.0, 3.01]}),
        (CASE, {"tau_list": [0.5, 0.7, 1.0, 0.81]}),
        (CASE, {"top_p": 0.9}),
        (CASE, {"g_seed": 1235}),
        (CASE, {"override": {"rope2d_normalized_by_hw": 1}}),
        (CASE, {"override": {"add_lvl_embeding_only_first_block": 0}}),
        ("case_b_layer_cfg", {"cfg_insertion_layer": [-1]}),
        ("case_d_nocfg_gtleak", {"gt_leak": 1}),
    ],
)
def test_another_setting_is_seen(copy: Path, case: str, setting: dict[str, object]) -> None:
    cases = json.loads((copy / "config.json").read_text())["cases"]
    edit_config(copy, cases={**cases, case: {**cases[case], **setting}})
    assert not parity(copy, only=[case]).ok


@pytest.mark.parametrize("name", ["text_kv_compact", "s2.bits"])
def test_another_input_is_seen(copy: Path, name: str) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        value = tensors[name].clone()
        value.view(-1)[0] = 1 - value.view(-1)[0]
        return {**tensors, name: value}

    edit_tensors(copy / f"{CASE}.safetensors", change)
    assert not parity(copy, only=[CASE]).ok


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rms_norm": True}, "only rms_norm = False is supported"),
        ({"norm_eps": 1e-4}, "only norm_eps = 1e-06 is supported"),
        ({"depth": 6}, "the weights of plain are of"),
    ],
)
def test_other_models_are_refused(copy: Path, change: dict[str, object], message: str) -> None:
    models = json.loads((copy / "config.json").read_text())["models"]
    models["plain"]["transformer"] |= change
    edit_config(copy, models=models)
    (miss,) = parity(copy, only=[CASE]).of(MISS)
    assert message in miss.reason


def test_a_missing_text_or_encoding_is_told(copy: Path) -> None:
    edit_tensors(copy / f"{CASE}.safetensors", lambda t: {k: v for k, v in t.items() if not k.startswith("text_kv")})
    (copy / "vae_roundtrip_plain.safetensors").unlink()
    found = parity(copy, only=[CASE, "case_d_nocfg_gtleak"])
    reasons = [each.reason for each in found.of(MISS)]
    assert len(reasons) == 2
    assert any("no text_kv_compact" in reason for reason in reasons)
    assert any("vae_roundtrip_plain.safetensors is not there" in reason for reason in reasons)
    assert torch.is_tensor(load_file(copy / f"{CASE}.safetensors")["s0.bits"])

"""Other sizes, missing and damaged files, and folders with nothing to compare."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from spoiling import edit_config, edit_tensors
from torch import Tensor

from hguide.errors import ConfigError
from hguide.experiments.parity.report import MISS, NOT_COMPARED, OK
from hguide.experiments.parity.run import parity
from hguide.experiments.parity.var_model import VARModel
from hguide.generate import StepRecord, run
from hguide.guidance import CFG
from hguide.noise import SeededNoise
from hguide.sampling import Sampler
from hguide.streams import COND, UNCOND

GOLDEN = Path(__file__).parents[2] / "golden" / "var"
LN_100 = math.log(100.0)


def record_own(folder: Path, *, shared: bool, l2_norm: bool) -> None:
    """A run of this package under another schedule, other widths and seeds, weights by the recipe."""
    tokenizer = {"vocab_size": 40, "z_channels": 6, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1}
    quantizer = {"share_quant_resi": 3, "quant_resi": 0.25, "patch_nums": [1, 2, 4], "vae_seed": 101}
    transformer = {"num_classes": 5, "depth": 2, "embed_dim": 32, "num_heads": 4, "mlp_ratio": 2.0, "norm_eps": 1e-5}
    kind = {"shared_aln": shared, "attn_l2_norm": l2_norm, "var_seed": 102}
    sampling = {"labels": [4, 0, 5], "sampling": {"cfg": 2.5, "top_k": 15, "top_p": 0.8}}
    config = {**tokenizer, **quantizer, **transformer, **kind, **sampling}
    generator = VARModel(folder, config).generator
    tensors: dict[str, Tensor] = {"labels": torch.tensor([4, 0, 5])}

    def record(each: StepRecord) -> None:
        start = f"s{each.step.index}"
        tensors[f"{start}.tokens"] = each.draw.tokens.flatten(1)
        tensors[f"{start}.logits_cond"] = each.predictions[COND].flatten(1, 2)
        if UNCOND in each.predictions:
            tensors[f"{start}.logits_uncond"] = each.predictions[UNCOND].flatten(1, 2)
        tensors[f"{start}.logits_cfg"] = each.logits.flatten(1, 2)

    sampler = Sampler(top_k=15, top_p=0.8)
    conditions, noise = generator.conditions([4, 0, None], 3), SeededNoise([7, 8, 9])
    with torch.no_grad():
        state = run(generator, conditions, CFG(2.5), sampler, noise=noise, on_step=record)
        tensors |= {"f_hat": state.latent, "image_pool2": torch.nn.functional.avg_pool2d(generator.decode(state), 2)}
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "case.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(("shared", "l2_norm"), [(False, True), (True, False)])
def test_other_sizes_schedules_and_seeds(tmp_path: Path, shared: bool, l2_norm: bool) -> None:
    record_own(tmp_path, shared=shared, l2_norm=l2_norm)
    found = parity(tmp_path)
    assert found.ok, found.text()
    assert {each.quantity for each in found.of(OK)} == set(load_file(tmp_path / "case.safetensors"))
    edit_tensors(tmp_path / "case.safetensors", lambda tensors: {**tensors, "f_hat": tensors["f_hat"] * 1.01})
    assert {each.quantity for each in parity(tmp_path).of(MISS)} >= {"f_hat"}


# What is not there, not known or not right


def test_an_empty_directory_fails(tmp_path: Path) -> None:
    found = parity(tmp_path)
    assert not found.ok
    assert found.comparisons == ()
    assert "FAILED, nothing was compared" in found.text()


def test_a_directory_with_nothing_comparable_fails(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("[1, 2]")
    (tmp_path / "config.json").write_text('{"family": "of the future"}')
    save_file({"a": torch.zeros(2), "b": torch.zeros(2)}, tmp_path / "case.safetensors")
    found = parity(tmp_path)
    assert not found.ok
    assert {(each.case, each.tensors, each.reason) for each in found.of(NOT_COMPARED)} == {
        ("case", 2, "config.json describes no family known here"),
        ("notes", 0, "config.json describes no family known here"),
    }


def test_a_file_without_a_configuration_is_listed(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "case.safetensors")
    found = parity(tmp_path)
    assert not found.ok
    assert [each.reason for each in found.comparisons] == ["no config.json beside it"]


def test_a_configuration_holds_for_the_folders_below(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "vae_full", tmp_path / "runs" / "first")
    (tmp_path / "runs" / "first" / "config.json").rename(tmp_path / "config.json")
    found = parity(tmp_path)
    assert found.ok, found.text()


def test_an_unknown_tensor_is_listed_and_does_not_fail(copy: Path) -> None:
    edit_tensors(copy / "adaln" / "case.safetensors", lambda tensors: {**tensors, "s1.entropy": torch.zeros(3)})
    found = parity(copy, only=["adaln/case"])
    assert found.ok
    assert [(each.quantity, each.reason) for each in found.of(NOT_COMPARED)] == [
        ("s1.entropy", "no such quantity in this kind of case")
    ]
    assert "s1.entropy" in found.text()


def test_only_unknown_tensors_fail(copy: Path) -> None:
    edit_tensors(copy / "adaln" / "case.safetensors", lambda tensors: {"entropy": torch.zeros(3)})
    assert not parity(copy, only=["adaln/case"]).ok


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: {n: v for n, v in t.items() if n != "s2.tokens"}, "has no s2.tokens to replay"),
        (lambda t: {**t, "s2.tokens": t["s2.tokens"][:, :4]}, r"\(2, 4\); config.json has 9 tokens"),
        (lambda t: {**t, "labels": t["labels"][:1]}, "recorded tokens of step 0"),
        (lambda t: {**t, "labels": t["labels"] + 50}, "a class is an integer"),
    ],
)
def test_a_run_that_cannot_be_replayed_misses(copy: Path, change: Callable, reason: str) -> None:
    edit_tensors(copy / "adaln" / "case.safetensors", change)
    found = parity(copy, only=["adaln/case"])
    assert not found.ok
    with pytest.raises(ConfigError, match=reason):
        raise ConfigError(" ".join(each.reason for each in found.of(MISS)))
    assert "the replay stopped" in {each.reason for each in found.of(NOT_COMPARED)}


def test_weights_that_do_not_fit_miss_once_per_run_and_name_the_keys(copy: Path) -> None:
    path = copy / "adaln" / "weights_var.safetensors"
    edit_tensors(path, lambda state: {n: v for n, v in state.items() if n != "head.bias"})
    found = parity(copy / "adaln")
    assert {each.case for each in found.of(MISS)} == {"case", "smooth", "edit"}
    assert all("missing: head.bias" in each.reason for each in found.of(MISS))


def test_other_shapes_and_nan_miss(copy: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**tensors, "image": tensors["image"][..., :8], "s1.f_hat": tensors["s1.f_hat"] * math.nan}

    edit_tensors(copy / "adaln" / "case.safetensors", change)
    found = parity(copy, only=["adaln/case"])
    assert {each.quantity: each.error for each in found.of(MISS)} == {"image": math.inf, "s1.f_hat": math.inf}
    assert "shape (2, 3, 20, 20), recorded (2, 3, 20, 8)" in found.text()


def test_files_that_the_configuration_names_are_missed_by_name(copy: Path) -> None:
    (copy / "adaln" / "smooth.safetensors").unlink()
    found = parity(copy)
    assert found.ok
    assert [each.case for each in found.comparisons if "not there" in each.reason] == ["adaln/smooth"]


def test_a_run_without_settings_misses(copy: Path) -> None:
    edit_config(copy / "adaln", sampling=None)
    (miss,) = parity(copy, only=["adaln/case"]).of(MISS)
    assert miss.reason == "config.json states no cfg, top_k, top_p for adaln/case."


def test_a_damaged_file_misses(copy: Path) -> None:
    path = copy / "adaln" / "edit.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    (miss,) = parity(copy, only=["adaln/edit"]).of(MISS)
    assert "damaged" in miss.reason


def test_a_manifest_of_another_network_misses(tmp_path: Path) -> None:
    manifest = json.loads((GOLDEN / "manifest_d16.json").read_text())
    manifest["blocks.3.ffn.fc1.bias"] = [7]
    del manifest["head.bias"]
    (tmp_path / "manifest_d17.json").write_text(json.dumps(manifest))
    (miss,) = parity(tmp_path).of(MISS)
    assert miss.error == 3
    assert miss.reason == "blocks.3.ffn.fc1.bias, depth 16, head.bias"


def test_directories_and_cases_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere is not a directory"):
        parity(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no case 'adal' .* did you mean 'adaln'"):
        parity(GOLDEN, only=["adal"])
    (tmp_path / "config.json").write_text("{")
    save_file({"a": torch.zeros(2)}, tmp_path / "case.safetensors")
    with pytest.raises(ConfigError, match=r"config.json: not readable as JSON"):
        parity(tmp_path)


# The report

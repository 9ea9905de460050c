"""The recorded runs of HART: everything is replayed and accounted for, and one number off by a percent is seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from spoiling import edit_tensors
from torch import Tensor

from hguide.backends.text import TextEmbedding
from hguide.experiments.parity.hart_model import HARTModels
from hguide.experiments.parity.hart_tolerances import hart_tolerance
from hguide.experiments.parity.report import MISS, NOT_COMPARED, OK, Report
from hguide.experiments.parity.run import FAMILIES, parity
from hguide.generate import run
from hguide.noise import SeededNoise
from hguide.sampling import Sampler

HERE = Path(__file__).parents[2] / "golden" / "hart"
INPUTS = {"context", "context_mask", "img_in"}
FED_BACK = ("orders", "gumbel_exp", "diff.noise0", "diff.step_noise")

COSINES = 128

HEAD = "diffloss.net."
RESIDUAL_GROUPS = (
    *(f"{HEAD}{layer}.{part}" for layer in ("cond_embed", "input_proj") for part in ("weight", "bias")),
    *(f"{HEAD}time_embed.mlp.{place}.weight" for place in (0, 2)),
    *(f"{HEAD}res_blocks.0.{layer}.weight" for layer in ("in_ln", "mlp.0", "mlp.2", "adaLN_modulation.1")),
    *(f"{HEAD}final_layer.{layer}.weight" for layer in ("linear", "adaLN_modulation.1")),
)
COMMON_GROUPS = (
    *(f"{layer}.{part}" for layer in ("word_embed", "context_embed", "head") for part in ("weight", "bias")),
    *("head_nm.ln_wo_grad.weight", "head_nm.ada_lin.1.weight", "head_nm.ada_lin.1.bias", "decoder_norm.weight"),
    *(f"blocks.1.attn.{part}" for part in ("qkv_proj.weight", "q_bias", "v_bias", "proj.weight", "proj.bias")),
    *("blocks.0.ln_wo_grad.weight", "blocks.1.ln_wo_grad.weight"),
)
GATED = tuple(f"blocks.1.ffn.{part}_proj.weight" for part in ("gate", "up", "down"))
TIMESTEP = tuple(f"lvl_embed.mlp.{place}.{part}" for place in (0, 2) for part in ("weight", "bias"))
CASE_C = (
    *COMMON_GROUPS,
    *RESIDUAL_GROUPS,
    *GATED,
    *TIMESTEP,
    "blocks.0.scale_shift_table",
    "blocks.1.scale_shift_table",
)
CASE_A = ("blocks.2.attn.scale_mul_1H11", "context_norm.weight", *GATED, *TIMESTEP)
CASE_B = (
    *("lvl_embed.weight", "blocks.1.ada_lin.1.weight", "blocks.0.ada_lin.1.bias"),
    *(f"blocks.1.ffn.{layer}.{part}" for layer in ("fc1", "fc2") for part in ("weight", "bias")),
)
TOKENIZER = (
    *("encoder.conv_in.weight", "encoder.mid.attn_1.proj_out.weight", "encoder.norm_out.weight"),
    *("decoder.conv_in.weight", "decoder.up.1.block.0.conv2.weight", "decoder.conv_out.bias"),
    *(f"{layer}.{part}" for layer in ("quant_conv", "post_quant_conv") for part in ("weight", "bias")),
    *("quantize.embedding.weight", *(f"quantize.quant_resi.qresi_ls.{j}.weight" for j in range(4))),
)


@pytest.fixture(scope="module")
def report() -> Report:
    return parity(HERE)


def models(folder: Path) -> HARTModels:
    return HARTModels(folder, json.loads((folder / "config.json").read_text()))


def copy_of(folder: Path, path: Path, case: str) -> Path:
    """What one case needs, to be changed."""
    for file in folder.iterdir():
        if file.stem in ("config", "context") or file.name.startswith((f"case_{case}", "tokenizer")):
            shutil.copy(file, path / file.name)
            (path / file.name).chmod(0o644)
    return path


# Passing


def test_the_golden_runs_pass(report: Report) -> None:
    assert report.ok, report.text()
    passed = {each.case for each in report.comparisons if each.verdict == OK}
    runs = {path.stem for path in HERE.glob("case_*_run_*.safetensors")}
    assert len(runs) == 7
    assert passed == runs | {
        *("tokenizer_case", "context", "diffusion_schedule_5", "diffusion_schedule_8"),
        *("manifest_0.7b_1024", "manifest_tokenizer"),
    }
    assert not [each for each in report.comparisons if "the file is not there" in each.reason]


def test_every_recorded_tensor_is_accounted_for(report: Report) -> None:
    for path in HERE.glob("*.safetensors"):
        rows = {each.quantity: each for each in report.comparisons if each.case == path.stem}
        if path.stem.endswith("_weights"):
            assert sum(each.tensors for each in rows.values()) == len(load_file(path))
            continue
        assert set(rows) == set(load_file(path)), path.stem
        left = {name for name, each in rows.items() if each.verdict == NOT_COMPARED}
        assert all(name in INPUTS or name.endswith(FED_BACK) for name in left), left


def test_manifests_count_their_keys(report: Report) -> None:
    counts = {each.case: each.tensors for each in report.comparisons if each.quantity == "keys and shapes"}
    tokenizer = json.loads((HERE / "manifest_tokenizer.json").read_text())["keys"]
    read = [key for key in tokenizer if not key.startswith("disc.") and not key.endswith("ema_vocab_hit_SV")]
    assert counts == {"manifest_0.7b_1024": 341, "manifest_tokenizer": len(read)}


def test_the_recorded_weights_run_freely() -> None:
    folder = models(HERE)
    model, context = folder.case("c"), folder.context
    texts = [TextEmbedding(context["context"][i], context["context_mask"][i]) for i in range(2)]
    state = run(model, texts, "cfg(1.5) | ssg(1.0)", Sampler(top_k=600), noise=SeededNoise([0, 1]))
    assert torch.isfinite(model.decode(state)).all()


def test_the_family_is_told_by_its_configuration() -> None:
    config = json.loads((HERE / "config.json").read_text())
    assert [name for name, family in FAMILIES.items() if family.recognises(config)] == ["hart"]
    assert not FAMILIES["hart"].recognises({})
    assert not FAMILIES["hart"].recognises({"cases": {}, "tokenizer": {}})


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        *(("s3.it0.idx", 0.0), ("s1.n_kept", 0.0), ("s3.it0.diff.t", 0.0), ("timestep_map", 0.0)),
        *(("s1.logits", 2e-5), ("s3.it0.x_in", 2e-5), ("s3.it0.diff.z", 2e-5), ("img", 2e-5)),
        *(("s3.it0.diff.net_out_raw", 1e-4), ("betas", 1e-12), ("s3.it0.diff.cfg", 1e-12)),
    ],
)
def test_tolerances(name: str, tolerance: float) -> None:
    assert hart_tolerance(name) == tolerance


# Sensitivity


def one_percent(name: str, weight: Tensor, read: Tensor) -> Tensor:
    """The largest number of a tensor times 1.01, of an embedding among the rows that the recording reads."""
    sizes = weight.float().abs()
    if name.endswith("quantize.embedding.weight"):
        kept = torch.zeros_like(sizes)
        kept[read] = sizes[read]
        sizes = kept
    if name.endswith("mlp.0.weight") and sizes.shape[1] == 2 * COSINES:
        sizes[:, COSINES:] = 0.0  # most of the sines of four levels are next to nothing
    changed = weight.float().clone()
    changed.view(-1)[sizes.argmax()] *= 1.01
    return changed


def assert_seen(folder: Path, weights: str, case: str, name: str) -> None:
    recorded = load_file(folder / f"{case}.safetensors")
    read = torch.cat([value.flatten() for key, value in recorded.items() if ".idx" in key])
    edit_tensors(folder / f"{weights}.safetensors", lambda state: {**state, name: one_percent(name, state[name], read)})
    found = parity(folder, only=[case])
    assert found.of(MISS), name


@pytest.mark.parametrize("name", CASE_C)
def test_one_number_off_by_a_percent_is_seen(tmp_path: Path, name: str) -> None:
    assert_seen(copy_of(HERE, tmp_path, "c"), "case_c_weights", "case_c_run_plain", name)


@pytest.mark.parametrize("name", TOKENIZER)
def test_one_number_of_the_tokenizer_off_by_a_percent_is_seen(tmp_path: Path, name: str) -> None:
    assert_seen(copy_of(HERE, tmp_path, "none"), "tokenizer_weights", "tokenizer_case", f"vae.{name}")


@pytest.mark.parametrize(("case", "name"), [*(("a", each) for each in CASE_A), *(("b", each) for each in CASE_B)])
def test_one_number_of_the_other_forms_off_by_a_percent_is_seen(tmp_path: Path, case: str, name: str) -> None:
    assert_seen(copy_of(HERE, tmp_path, case), f"case_{case}_weights", f"case_{case}_run_plain", name)


@pytest.mark.parametrize(
    ("name", "place"), [("s2.idx", (0, 3)), ("s3.it0.diff.noise0", (4, 2)), ("s3.it0.diff.step_noise", (0, 4, 2))]
)
def test_another_input_is_seen(tmp_path: Path, name: str, place: tuple[int, ...]) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        value = tensors[name].clone()
        value[place] = value[place] + (0.01 if value.is_floating_point() else 1)
        return {**tensors, name: value}

    folder = copy_of(HERE, tmp_path, "c")
    edit_tensors(folder / "case_c_run_plain.safetensors", change)
    assert parity(folder, only=["case_c_run_plain"]).of(MISS)


@pytest.mark.parametrize(
    ("part", "setting"),
    [("cases", {"norm_eps": 1e-5}), ("cases", {"num_sampling_steps": "7"}), ("runs", {"cfg": 1.01})],
)
def test_another_setting_is_seen(tmp_path: Path, part: str, setting: dict[str, object]) -> None:
    folder = copy_of(HERE, tmp_path, "c")
    config = json.loads((folder / "config.json").read_text())
    (config["cases"]["c"] if part == "cases" else config["runs"]["c"]["plain"]).update(setting)
    (folder / "config.json").write_text(json.dumps(config))
    assert parity(folder, only=["case_c_run_plain"]).of(MISS)


def test_damaged_files_and_missing_weights_miss(tmp_path: Path) -> None:
    folder = copy_of(HERE, tmp_path, "c")
    (folder / "case_c_weights.safetensors").unlink()
    (miss,) = parity(folder, only=["case_c_run_plain"]).of(MISS)
    assert "no such file" in miss.reason
    path = folder / "tokenizer_case.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    (miss,) = parity(folder, only=["tokenizer_case"]).of(MISS)
    assert "damaged" in miss.reason

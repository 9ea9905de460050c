"""`hguide parity`: the golden runs pass, every tensor is accounted for, and one weight off by 1 % is seen."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hguide.errors import ConfigError
from hguide.experiments.parity.recording import Recording, largest_difference
from hguide.experiments.parity.report import MISS, NOT_COMPARED, OK, Comparison, Report
from hguide.experiments.parity.run import FAMILIES, parity
from hguide.experiments.parity.summaries import summary
from hguide.experiments.parity.tolerances import tolerance_of
from hguide.experiments.parity.var_model import VARModel
from hguide.generate import StepRecord, run
from hguide.guidance import CFG
from hguide.noise import SeededNoise
from hguide.sampling import Replay, Sampler
from hguide.streams import COND, UNCOND

GOLDEN = Path(__file__).parents[1] / "golden" / "var"
SMALL = ("adaln", "saln", "vae_full", "quant10", "sampling", "phi_index", "manifest_*")
INPUTS = {
    "adaln/vae_case": {"image", "grad_w"},
    "adaln/smooth": {"labels", *(f"s{k}.exp_noise" for k in range(4))},
    "adaln/edit": {"image_in"},
    "vae_full/case": {"image"},
}
IMAGE = 1e-4
LN_100 = math.log(100.0)


@pytest.fixture(scope="module")
def report() -> Report:
    return parity(GOLDEN, only=SMALL)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The folders `adaln` and `saln`, to be changed."""
    for name in ("adaln", "saln"):
        (tmp_path / name).mkdir()
        for file in (GOLDEN / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    return tmp_path


def edit_tensors(path: Path, change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}, path)


def edit_config(path: Path, **changes: object) -> None:
    config = json.loads((path / "config.json").read_text()) | changes
    kept = {name: value for name, value in config.items() if value is not None}
    (path / "config.json").write_text(json.dumps(kept))


# The golden runs


def test_the_golden_runs_pass(report: Report) -> None:
    assert report.ok, report.text()
    assert {each.case for each in report.comparisons if each.verdict == OK} >= {
        *("adaln/case", "adaln/vae_case", "adaln/smooth", "adaln/edit", "saln/case", "vae_full/case"),
        *("quant10", "sampling", "phi_index", "manifest_vae"),
        *(f"manifest_{size}" for size in ("d16", "d20", "d24", "d30", "d36_512")),
    }


def test_every_recorded_tensor_is_accounted_for(report: Report) -> None:
    for path in GOLDEN.rglob("*.safetensors"):
        case = path.relative_to(GOLDEN).with_suffix("").as_posix()
        if path.parent.name == "d16_full" or path.stem.startswith("weights"):
            continue
        rows = {each.quantity: each for each in report.comparisons if each.case == case}
        assert set(rows) == set(load_file(path)), case
        left = {name for name, each in rows.items() if each.verdict == NOT_COMPARED}
        if case == "quant10":
            assert left == {"f", *(name for name in rows if name.startswith("quantize."))}
        elif case == "sampling":
            assert left == {name for name in rows if name.endswith(".logits")}
        else:
            assert left == INPUTS.get(case, set()), case
        assert all(rows[name].reason == "an input of the replay" for name in left)
    assert sum(each.tensors for each in report.comparisons if each.quantity == "all") == 172 + 51 + 50


def test_manifests_count_their_keys(report: Report) -> None:
    counts = {each.case: each.tensors for each in report.comparisons if each.quantity == "keys and shapes"}
    sizes = {path.stem: len(json.loads(path.read_text())) for path in GOLDEN.glob("manifest_*.json")}
    assert counts == sizes | {"manifest_vae": sizes["manifest_vae"] - 1}  # less a statistic of the training


def test_one_folder_alone_passes() -> None:
    found = parity(GOLDEN / "adaln")
    assert found.ok, found.text()
    assert {each.case for each in found.comparisons} == {
        *("case", "edit", "smooth", "vae_case", "weights_vae", "weights_var")
    }


def test_weights_that_are_not_stored_are_drawn_by_the_recipe(copy: Path) -> None:
    shutil.rmtree(copy / "adaln")  # where the tokenizer of the other folder lies
    (copy / "saln" / "weights_var.safetensors").unlink()
    found = parity(copy / "saln")
    assert found.ok, found.text()
    edit_config(copy / "saln", var_seed=14)
    assert not parity(copy / "saln").ok
    edit_config(copy / "saln", var_seed=None)
    (miss,) = parity(copy / "saln").of(MISS)
    assert "var_seed" in miss.reason


def test_the_public_loop_gives_the_recorded_images() -> None:
    config = json.loads((GOLDEN / "adaln" / "config.json").read_text())
    case, model = load_file(GOLDEN / "adaln" / "case.safetensors"), VARModel(GOLDEN / "adaln", config)
    settings = config["sampling"]
    tokens = [case[f"s{k}.tokens"] for k in range(4)]
    sampler = Replay(top_k=settings["top_k"], top_p=settings["top_p"], tokens=tokens)
    state = run(model.generator, config["labels"], CFG(settings["cfg"]), sampler, noise=SeededNoise([0, 1]))
    assert largest_difference(model.generator.decode(state), case["image"]) <= IMAGE


@pytest.mark.slow
def test_the_full_size_model_passes() -> None:
    root = Path(os.environ["HGUIDE_GOLDEN"]) / "var" if "HGUIDE_GOLDEN" in os.environ else GOLDEN
    found = parity(root)
    assert found.ok, found.text()
    names = set(load_file(root / "d16_full" / "case.safetensors"))
    assert {each.quantity for each in found.of(OK) if each.case == "d16_full/case"} == names


# Sensitivity

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


def test_scales_share_a_line_and_a_miss_has_its_own() -> None:
    rows = [Comparison("run", f"s{k}.block{j}_out", 5e-7 * (k + j), 1e-5) for k in range(11) for j in range(2)]
    rows[3] = replace(rows[3], error=2e-3)
    report = Report("here", (*rows, Comparison("run", "s4.tokens", 3.0), Comparison("run", "f", None, 0.0, "input")))
    header, gathered, first, second, left, last = report.text().splitlines()
    assert header.split() == ["case", "quantity", "tensors", "max", "error", "tolerance", "verdict"]
    assert gathered.split() == ["run", "s*.block*_out", "21", "5.5e-06", "1e-05", "ok"]
    assert first.split() == ["run", "s1.block1_out", "1", "2.0e-03", "1e-05", "MISS"]
    assert second.split() == ["run", "s4.tokens", "1", "3", "differ", "exact", "MISS"]
    assert left.split() == ["run", "f", "1", "-", "-", "not", "compared", "(input)"]
    assert last == "here: FAILED, 23 compared, 2 missed, 1 not compared."
    assert len(report.text(every=True).splitlines()) == 26


def test_verdicts() -> None:
    assert Comparison("c", "q", 0.0).verdict == OK
    assert Comparison("c", "q", 1e-5, 1e-5).verdict == OK
    assert Comparison("c", "q", math.nan, 1e-5).verdict == MISS
    assert Comparison("c", "q", None).verdict == NOT_COMPARED
    assert not Report("d", ()).ok
    assert not Report("d", (Comparison("c", "q", None),)).ok
    assert Report("d", (Comparison("c", "q", 0.0), Comparison("c", "r", None))).ok


def test_infinities_and_nan_in_the_largest_difference() -> None:
    inf, nan = math.inf, math.nan
    assert largest_difference(torch.tensor([-inf, 1.0]), torch.tensor([-inf, 1.5])) == 0.5
    assert largest_difference(torch.tensor([-inf]), torch.tensor([2.0])) == inf
    assert largest_difference(torch.tensor([-inf]), torch.tensor([inf])) == inf
    assert largest_difference(torch.tensor([nan]), torch.tensor([nan])) == inf


def test_parts_and_sums_of_large_tensors() -> None:
    logits, image = torch.randn(2, 5, 7), torch.rand(1, 3, 128, 128)
    assert summary("sub", logits, torch.zeros(2, 2, 4)).equal(logits[:, [0, 4], :4])
    assert summary("lse", logits, torch.zeros(2, 5)).allclose(logits.exp().sum(-1).log())
    assert summary("crop", image, torch.zeros(1, 3, 16, 8)).equal(image[..., 96:112, 96:104])
    assert summary("pool4", image, torch.zeros(1, 3, 32, 32))[0, 1, 2, 3].isclose(image[0, 1, 8:12, 12:16].mean())
    assert summary("pool", image, image) is None
    assert summary("in", image, image) is None
    assert summary("mask", image, image) is None


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        *(("s3.tokens", 0.0), ("s3.kept", 0.0), ("edit_mask", 0.0), ("check.decoder.f", 0.0), ("k5.filtered", 0.0)),
        *(("s3.x_in", 1e-5), ("sub.f_hat_last", 1e-5), ("s10.block3_out", 5e-5), ("tf.logits", 5e-5)),
        *(("s3.logits_cfg", 5e-4), ("s3.logits_cond_sub", 1e-4), ("image_pool8", 1e-4), ("grad_f_hat", 1e-4)),
    ],
)
def test_tolerances(name: str, tolerance: float) -> None:
    assert tolerance_of(name) == tolerance


def test_a_quantity_that_was_not_recorded_is_not_entered() -> None:
    recording = Recording("case", {"a": torch.zeros(2)})
    recording.compare("b", torch.ones(2))
    assert [(each.quantity, each.verdict) for each in recording.finish("left")] == [("a", NOT_COMPARED)]


def test_families_are_told_by_their_configuration() -> None:
    assert FAMILIES["var"].recognises({})
    assert FAMILIES["var"].recognises(json.loads((GOLDEN / "vae_full" / "config.json").read_text()))
    assert not FAMILIES["var"].recognises({"cases": {}, "tokenizer": {}})

"""Everything that was recorded is replayed, compared and accounted for."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from spoiling import edit_config

from hguide.experiments.parity.recording import largest_difference
from hguide.experiments.parity.report import MISS, NOT_COMPARED, OK, Report
from hguide.experiments.parity.run import parity
from hguide.experiments.parity.var_model import VARModel
from hguide.generate import run
from hguide.guidance import CFG
from hguide.noise import SeededNoise
from hguide.sampling import Replay

GOLDEN = Path(__file__).parents[2] / "golden" / "var"
INPUTS = {
    "adaln/vae_case": {"image", "grad_w"},
    "adaln/smooth": {"labels", *(f"s{k}.exp_noise" for k in range(4))},
    "adaln/edit": {"image_in"},
    "vae_full/case": {"image"},
}
IMAGE = 1e-4
LN_100 = math.log(100.0)


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

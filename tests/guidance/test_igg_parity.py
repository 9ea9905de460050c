"""IGG beside its authors' code: the recorded runs pass, and faults in them are seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hguide.experiments.parity.report import MISS, NOT_COMPARED
from hguide.experiments.parity.run import parity
from hguide.experiments.parity.var_model import VARModel
from hguide.generate import StepRecord, run
from hguide.noise import SeededNoise
from hguide.sampling import Replay

GOLDEN = Path(__file__).parents[1] / "golden"
# The network's rounding, 2e-5, comes out of the attention up to thirty times as large.
END_TO_END = 1e-3


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "igg").mkdir()
    (tmp_path / "var").symlink_to(GOLDEN / "var")
    for file in ("case.safetensors", "config.json"):
        (tmp_path / "igg" / file).write_bytes((GOLDEN / "igg" / file).read_bytes())
    return tmp_path / "igg"


def test_the_recorded_runs_pass_and_every_tensor_is_compared() -> None:
    report = parity(GOLDEN / "igg")
    assert report.ok, report.text()
    assert {each.quantity for each in report.comparisons} == set(load_file(GOLDEN / "igg" / "case.safetensors"))
    assert not report.of(NOT_COMPARED)


@pytest.mark.parametrize(
    ("run_name", "name", "value", "missed"),
    [
        ("igg", "w_igg", 3.1, {"igg.s1.guided", "igg.s2.guided", "igg.s3.guided"}),
        ("mixed", "w_cfg", 1.6, {"mixed.s1.guided", "mixed.s2.guided", "mixed.s3.guided"}),
        ("mixed", "w_cfg", None, {f"mixed.s{k}.guided" for k in range(4)}),
        ("soft", "logit_scale", None, {f"soft.s{k}.{name}" for k in range(4) for name in ("cond", "uncond")}),
    ],
)
def test_another_setting_is_seen(copy: Path, run_name: str, name: str, value: object, missed: set[str]) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["runs"][run_name][name] = value
    (copy / "config.json").write_text(json.dumps(config))
    found = {each.quantity for each in parity(copy).of(MISS)}
    assert missed <= {name for name in found if not name.endswith("tokens")} == missed


def test_another_ground_is_seen(copy: Path) -> None:
    tensors = load_file(copy / "case.safetensors")
    tensors["soft.s2.ground"] *= 1.01
    save_file(tensors, copy / "case.safetensors")
    assert [each.quantity for each in parity(copy).of(MISS)] == ["soft.s2.ground"]


def test_missing_networks_are_named(copy: Path) -> None:
    (copy.parent / "var").unlink()
    (miss,) = [each for each in parity(copy).of(MISS) if each.quantity == "replay"]
    assert "the weights 'adaln' lie neither in" in miss.reason


@pytest.mark.parametrize(("name", "text"), [("igg", "igg(3.0)"), ("mixed", "igg(2.0, cfg=1.5)")])
def test_the_public_loop_gives_the_recorded_logits(name: str, text: str) -> None:
    settings = json.loads((GOLDEN / "igg" / "config.json").read_text())["runs"][name]
    case = load_file(GOLDEN / "igg" / "case.safetensors")
    folder = GOLDEN / "var" / "adaln"
    generator = VARModel(folder, json.loads((folder / "config.json").read_text())).generator
    sampler = Replay(top_k=20, top_p=0.9, tokens=[case[f"{name}.s{k}.tokens"] for k in range(4)])
    seen: list[StepRecord] = []
    run(generator, settings["labels"], text, sampler, noise=SeededNoise([0, 1]), on_step=seen.append)
    for record in seen:
        recorded = case[f"{name}.s{record.step.index}.guided"]
        torch.testing.assert_close(record.logits.flatten(1, 2), recorded, atol=END_TO_END, rtol=0)

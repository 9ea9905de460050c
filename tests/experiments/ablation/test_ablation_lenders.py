"""Lenders of an ablation: loaded, hashed into the cells that ask for them, and handed to the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from var_pair import write_pair

import hguide
from hguide.cli import main
from hguide.errors import ConfigError
from hguide.experiments.ablation.cells import read_cells
from hguide.experiments.ablation.config import read_config
from hguide.experiments.ablation.plan import Models, PlannedCell, plan_cells
from hguide.experiments.ablation.work import sample_block
from hguide.images import to_uint8
from hguide.provenance import model_hash

WEAK = "cfg(2) | autoguidance(1.5)"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("models"))


def planned(folder: Path, pair: tuple[Path, Path], text: str) -> tuple[tuple[PlannedCell, ...], Models]:
    path = folder / "lenders.yaml"
    path.write_text(f"model: {pair[0]}\nguidance: [cfg(2), {WEAK}]\nseeds: 0-3\n{text}")
    config, models = read_config(path), Models(torch.device("cpu"), torch.float32)
    cells = plan_cells(config, read_cells(config), models, "cpu")
    config.problems.raise_any("lenders.yaml")
    return cells, models


def test_the_lender_is_handed_to_the_cells_that_ask_for_it(pair, tmp_path):
    (plain, weak), models = planned(tmp_path, pair, f"models: {{weak: {pair[1]}}}")
    assert plain.error is None
    assert weak.error is None
    assert (plain.lenders, weak.lenders) == ({}, {"weak": str(pair[1])})
    assert weak.streams == 4
    strong, lent = (hguide.load(path) for path in pair)
    found = sample_block(models, weak, (4, 5), deterministic=False).images
    wanted = hguide.generate(strong, [1, 2], WEAK, seeds=[4, 5], models={"weak": lent})
    assert (found == to_uint8(wanted)).all()
    assert (found != to_uint8(hguide.generate(strong, [1, 2], "cfg(2)", seeds=[4, 5]))).any()


def test_the_lenders_weights_are_in_the_hash_of_its_cells_alone(pair, tmp_path):
    (plain, weak), _ = planned(tmp_path, pair, f"models: {{weak: {pair[1]}}}")
    (same, other), models = planned(tmp_path, pair, f"models: {{weak: {pair[0]}}}")
    assert weak.facts["models"] == {"weak": model_hash(hguide.load(pair[1]))}
    assert plain.hash == same.hash
    assert "models" not in plain.facts
    assert weak.hash != other.hash
    # A lender of the model's own path is the model, not a second copy.
    assert models.lenders(str(pair[0]), other.lenders)["weak"] is models.get(str(pair[0]))


def test_without_a_lender_the_cell_is_refused_and_named(pair, tmp_path):
    (plain, weak), _ = planned(tmp_path, pair, "")
    assert plain.error is None
    assert "models has no 'weak'" in weak.error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models: {main: x}", "line 4: 'main' is a cell's own model"),
        ("models: [weak]", "line 4: models is a mapping of lenders"),
        ("models:\n  weak: 3", "line 5: a lender is a name, file, folder or hub id, got 3"),
        ("models:\n  weak: {weak}\n  wek: {weak}", "line 6: no guidance asks for the lender 'wek'"),
        ("models: {{weak: none.safetensors}}", "line 4: lender 'weak': .*none.safetensors"),
    ],
)
def test_mistakes(text, expected, pair, tmp_path):
    with pytest.raises(ConfigError, match=expected):
        planned(tmp_path, pair, text.replace("{{", "{").replace("}}", "}").replace("{weak}", str(pair[1])))


def test_a_table_says_what_was_lent(written, tmp_path):
    path = written(guidance=["none", "autoguidance(1.0)"], models={"weak": "toy"})
    assert main(["ablate", str(path), "--out", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["provenance"]["lenders"] == {"weak": {"model": "toy", "hash": model_hash(hguide.load("toy"))}}
    # The toy lends to itself: nothing changes.
    first, second = results["cells"]
    assert first["hash"] != second["hash"]
    assert first["measures"] == second["measures"]

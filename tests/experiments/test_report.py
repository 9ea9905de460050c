"""`hguide train evaluate`: on the bundled model and made-up scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hguide.errors import ConfigError
from hguide.experiments.training.report import EvaluationConfig, _wilson, run
from hguide.load import load


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One grey test scene for each of three classes; all differences of a constant picture but the first are 0."""
    folder = tmp_path_factory.mktemp("scenes")
    coded = np.zeros((3, 3, 96, 96), np.uint8)
    coded[:, 1, 0, 0] = (60, 120, 180)
    (folder / "classes.json").write_text(json.dumps(["a", "b", "c"]))
    sources = np.array([b"a00", b"b00", b"c00"])
    np.savez(folder / "test.npz", coded=coded, labels=np.arange(3, dtype=np.uint8), source=sources)
    return folder


def test_a_model_is_evaluated_and_written(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation.json"
    found = run(EvaluationConfig(data=str(scenes), guidances=("none", "cfg(3.0)"), seeds_per_class=1, out=str(out)))
    assert json.loads(out.read_text()) == found.results == json.loads(found.text())
    assert found.results["reconstructions"]["crops"] == 12
    assert found.results["reconstructions"]["psnr"] > 20  # a constant picture is easy
    assert set(found.results["samples"]) == {"none", "cfg(3.0)"}
    for sample in found.results["samples"].values():
        assert sample["images"] == 21
        assert sample["low"] < sample["accuracy"] < sample["high"]
        assert sample["accuracy"] > 4 / 21  # chance is 1 / 21


def test_a_model_that_cannot_be_evaluated(scenes: Path) -> None:
    with pytest.raises(ConfigError, match="toy has no tokenizer that is evaluated here"):
        run(EvaluationConfig(data=str(scenes), model="toy"))


def test_the_interval_of_a_share() -> None:
    # Brown, Cai, DasGupta 2001: 10 of 20.
    assert _wilson(0.5, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)
    low, high = _wilson(0.0, 10)
    assert low == pytest.approx(0.0, abs=1e-12)
    assert high == pytest.approx(0.2775, abs=1e-4)


def test_the_bundled_model_has_the_classifiers_classes() -> None:
    assert load("landuse-var").class_count == 21

"""`hguide trace`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hguide.cli import main
from hguide.experiments.trace.figure_style import new_figure

TOY = ["trace", "--model", "toy", "--classes", "1-2"]


@pytest.fixture
def empty_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures have tests of their own, and take longer than the run."""
    for name in ("curves.curves_figure", "heat_maps.heat_figure"):
        monkeypatch.setattr(f"hguide.experiments.trace.{name}", lambda *_: new_figure(1, 1))


def test_numbers_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--guidance", "cfg(2)|ssg(0.5)", "--seeds", "0-1", "--pictures", "1", "--out", str(tmp_path / "t")]
    assert main([*TOY, *arguments, "--top-k", "8", "--temperature", "entropy(theta=0.9)"]) == 0
    made = {"trace.json", "curves.png", "curves.svg", "heat.png", "heat.svg"}
    assert {path.name for path in (tmp_path / "t").iterdir()} == made
    content = json.loads((tmp_path / "t" / "trace.json").read_text())
    assert content["guidance"] == "cfg(2.0) | ssg(0.5)"
    assert content["sampler"] == {"temperature": "entropy(theta=0.9)", "top_k": 8, "top_p": 0.0}
    assert [(each["condition"], each["seed"]) for each in content["samples"]] == [(1, 0), (2, 0), (1, 1), (2, 1)]
    assert ["heat" in each["steps"][1] for each in content["samples"]] == [True, False, False, False]
    assert [step["kept"]["mean"] for step in content["steps"]] == [8.0] * 5
    shown = capsys.readouterr().out
    assert "  8x8 " in shown
    assert str(tmp_path / "t" / "heat.svg") in shown


def test_batches_do_not_change_the_numbers(tmp_path: Path, empty_figures: None) -> None:
    found = []
    for size in ("1", "3"):
        main([*TOY, "--guidance", "cfg(2)", "--out", str(tmp_path), "--batch-size", size, "--pictures", "0"])
        samples = json.loads((tmp_path / "trace.json").read_text())["samples"]
        found.append([step["divergence"] for sample in samples for step in sample["steps"]])
    assert found[0][2] is not None
    assert found[0] == [None if value is None else pytest.approx(value, rel=1e-4) for value in found[1]]


def test_what_has_nothing_to_show_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TOY, "--guidance", "none", "--out", str(tmp_path)]) == 0
    assert "none adds nothing to the logits" in capsys.readouterr().out
    assert not (tmp_path / "heat.png").exists()


def test_a_contrast_needs_the_null_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], empty_figures: None
) -> None:
    assert main([*TOY, "--guidance", "ssg", "--signal", "contrast", "--out", str(tmp_path)]) == 0
    assert "never asks for the null stream" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bands", "0.5,0.2"], "ascend within (0, 1)"),
        (["--bands", "low"], "numbers as 0.25,0.5,0.75, got 'low'"),
        (["--pictures", "-1"], "pictures is at least 0"),
        (["--prior", "dce"], "unknown prior 'dce'"),
        (["--reference", "last"], "last"),
        (["--guidance", "vpg", "--negative", "1"], "never asks for the null stream"),
    ],
)
def test_refusals(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TOY, "--out", str(tmp_path / "t"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "t").exists()


def test_figures_are_drawn_without_pyplot() -> None:
    """A process that traces opens no window and leaves no global figures."""
    code = (
        "import sys, hguide.experiments.trace.curves as c, hguide.experiments.trace.heat_maps; "
        "before = 'matplotlib' in sys.modules; from hguide.experiments.trace.figure_style import new_figure; "
        "new_figure(1, 1); print(before, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]

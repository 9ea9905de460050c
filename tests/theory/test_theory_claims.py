"""The table of claims names what exists, every verdict is computed, and the command writes every figure."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from hguide.cli import main
from hguide.errors import NumericalError
from hguide.theory.claims import CLAIMS, Claim, table
from hguide.theory.figures import FIGURES
from hguide.theory.verdict import approximate, exact, false, vacuous

HERE = Path(__file__).parent


@pytest.mark.parametrize("claim", CLAIMS, ids=[claim.check for claim in CLAIMS])
def test_a_claim_names_what_exists(claim: Claim) -> None:
    for place in (claim.function, claim.check):
        module, function = place.split(":")
        assert callable(getattr(importlib.import_module(f"hguide.theory.{module}"), function))
    file, test = claim.test.split("::")
    assert f"def {test}(" in (HERE / file).read_text()
    module, function = claim.check.split(":")
    check = getattr(importlib.import_module(f"hguide.theory.{module}"), function)
    assert not inspect.signature(check).parameters


def test_verdicts() -> None:
    assert exact(1e-12, "x").kind == "holds exactly"
    assert exact(1e-3, "x").kind == "false"
    assert approximate(1e-3, "x").kind == "approximation"
    assert approximate(0.0, "x").kind == "holds exactly"
    assert false(0.2, "x").kind == "false"
    assert false(0.0, "x").kind == "holds exactly"
    assert str(vacuous(0.25, "the same for any input")) == "vacuous (the same for any input: 0.25)"
    with pytest.raises(NumericalError, match="finite number"):
        exact(float("nan"), "x")


def test_the_table() -> None:
    chosen = tuple(claim for claim in CLAIMS if claim.check.startswith("bands:"))[:2]
    text = table(chosen)
    assert chosen[0].statement in text
    assert "bands:frame_bounds\n    false (" in text


def test_the_command_draws_one_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "--only", "literal-gain", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"literal-gain.png", "literal-gain.svg"}
    first = (tmp_path / "literal-gain.svg").read_bytes()
    assert main(["theory", "--only", "literal-gain", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "literal-gain.svg").read_bytes() == first
    assert capsys.readouterr().out == ""


def test_unknown_figures_are_answered_with_near_matches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "--only", "leakage-nearst"]) == 2
    assert "did you mean 'leakage-nearest'" in capsys.readouterr().err


# The ten figures of single priors are one function; the fast tests draw one of them.
DRAWN = [
    pytest.param(name, marks=[pytest.mark.slow] if name.startswith("leakage-") and name != "leakage-dse" else [])
    for name in FIGURES
]


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_drawn_with_labelled_axes(name: str) -> None:
    module, function = FIGURES[name].split(":")
    figure = getattr(importlib.import_module(module), function)()
    drawn = [axis for axis in figure.get_axes() if axis.has_data()]
    assert drawn
    labelled = [axis for axis in drawn if axis.get_xlabel() or axis.get_ylabel()]
    assert labelled or figure.get_supxlabel()
    assert any(axis.get_legend() for axis in figure.get_axes())


def test_the_page_shows_every_figure() -> None:
    page = (HERE.parents[1] / "docs" / "theory.md").read_text()
    images = HERE.parents[1] / "docs" / "images" / "theory"
    for name in FIGURES:
        assert f"images/theory/{name}.png" in page
        assert (images / f"{name}.png").stat().st_size < 80_000


@pytest.mark.parametrize("claim", CLAIMS, ids=[claim.check for claim in CLAIMS])
def test_the_page_lists_every_claim(claim: Claim) -> None:
    page = (HERE.parents[1] / "docs" / "theory.md").read_text()
    cells = (
        claim.equation,
        claim.statement.replace("|", "\\|"),
        f"`{claim.function.replace(':', '.')}`",
        f"`{claim.test}`",
    )
    assert f"| {' | '.join(cells)} | {claim.verdict().kind} |" in page

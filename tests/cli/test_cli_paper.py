"""`hguide paper`: what is wrong with the command itself is told before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from hguide.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nope"], "nope: no such model, file or folder: Known: infinity-2b"),
        (["--model", "landuse-vra"], "landuse-vra: no such model, file or folder: did you mean 'landuse-var'"),
        (["--model", "runs/nope.safetensors"], "runs/nope.safetensors: no such model, file or folder"),
        (["--model", "var-d16"], "give --reference PICTURES.npz"),
        (["--model", "owner/name"], "give --reference PICTURES.npz"),
        (["--seeds", ""], "seeds is empty: give at least one, for instance --seeds 0-7"),
        (["--seeds", "a"], "seeds: 'a' is neither a whole number"),
    ],
)
def test_refusals(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["paper", "ssg-table5", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "config.yaml" not in err
    assert list(tmp_path.iterdir()) == []

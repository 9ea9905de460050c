"""`hguide demo` and `trace` replace what they wrote before, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hguide.cli import main
from hguide.cli.earlier import carries
from hguide.images import write_png

DEMO = ["demo", "--model", "toy", "--classes", "0", "--seeds", "0", "--guidances", "none", "--out"]
TRACE = ["trace", "--model", "toy", "--classes", "0", "--seeds", "0", "--guidance", "none", "--out"]


def foreign(file: Path) -> bytes:
    """Somebody else's file of that kind."""
    if file.suffix == ".png":
        write_png(file, np.zeros((2, 2, 3), np.uint8), {"hguide": "mine"})
    else:
        file.write_text(json.dumps({"schema": "other/1", "precious": True}))
    return file.read_bytes()


@pytest.mark.parametrize(
    ("command", "name"),
    [(DEMO, "demo.json"), (DEMO, "grid.png"), (DEMO, "strip.png"), (TRACE, "trace.json"), (TRACE, "curves.png"),
     (TRACE, "heat.svg")],
)  # fmt: skip
def test_foreign_files_are_left(
    command: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = foreign(tmp_path / name)
    assert main([*command, str(tmp_path)]) == 2
    message = f"{tmp_path / name} is in the way and was not written by `hguide {command[0]}`: choose another --out"
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("command", [DEMO, TRACE], ids=["demo", "trace"])
def test_an_earlier_run_gives_way(command: list[str], tmp_path: Path) -> None:
    assert main([*command, str(tmp_path)]) == 0
    record = tmp_path / f"{command[0]}.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "seen": True}))
    assert main([*command, str(tmp_path)]) == 0
    assert "seen" not in json.loads(record.read_text())


def test_a_demo_that_was_cut_short_gives_way(tmp_path: Path) -> None:
    assert main([*DEMO, str(tmp_path)]) == 0
    (tmp_path / "demo.json").unlink()
    assert main([*DEMO, str(tmp_path)]) == 0
    foreign(tmp_path / "grid.png")
    assert main([*DEMO, str(tmp_path)]) == 2


@pytest.mark.parametrize("text", ["", "[]", "3", '{"schema": 1}', '{"schema": "hguide.demos/1"}'])
def test_what_carries_no_mark(text: str, tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text(text)
    assert not carries(tmp_path / "demo.json", "hguide.demo/1")
    assert not carries(tmp_path / "nowhere.json", "hguide.demo/1")
    assert not carries(tmp_path, "hguide.demo/1")


def test_a_mark_of_any_version_counts(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text('{"schema": "hguide.demo/2"}')
    assert carries(tmp_path / "demo.json", "hguide.demo/1")

"""Runs in processes of their own: killed in the middle, and two at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hguide.cli import main
from hguide.experiments.ablation.results import Results


def started(path: Path, out: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hguide", "ablate", str(path), "--out", str(out), "--device", "cpu", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def notes(out: Path) -> list[Path]:
    return sorted(out.glob("cells/*/block_*.json"))


def test_killed_in_the_middle_the_same_command_goes_on(written, tmp_path):
    path, out = written(seeds="0-15", block=1, replicates=4, measures=["score"]), tmp_path / "out"
    process = started(path, out)
    give_up = time.monotonic() + 120
    while len(notes(out)) < 4 and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    _, told = process.communicate()
    done = {each: each.stat().st_mtime_ns for each in notes(out)}
    assert 4 <= len(done) < 32, f"it was not killed in the middle: {told.decode()}"
    assert not (out / "results.json").exists()
    # What a process leaves that dies between the arrays and their note, and in the middle of writing.
    last = notes(out)[-1]
    last.with_name("block_000014.npz").write_bytes(b"half")
    last.with_name(".block_000015.npz.0.tmp").write_bytes(b"half")
    assert main(["ablate", str(path), "--out", str(out), "--device", "cpu"]) == 0
    assert all(each.stat().st_mtime_ns == stamp for each, stamp in done.items())
    assert main(["ablate", str(path), "--out", str(tmp_path / "whole"), "--device", "cpu"]) == 0
    facts = [json.loads((folder / "results.json").read_text()) for folder in (out, tmp_path / "whole")]
    for each in facts:
        del each["provenance"]
        for cell in each["cells"]:
            del cell["seconds_per_image"]
    assert facts[0] == facts[1]


@pytest.mark.slow
def test_two_processes_give_the_table_of_one(written, tmp_path):
    path = written(guidance=["none", "slg", "cfg(1e38) | cfg(w=1e38)", "cfg(2.0) | ssg(0.5)"], block=2)
    process = started(path, tmp_path / "two", "--devices", "2")
    _, told = process.communicate(timeout=600)
    assert process.returncode == 1, told.decode()
    assert main(["ablate", str(path), "--out", str(tmp_path / "one"), "--device", "cpu"]) == 1
    one, two = (Results.read(tmp_path / name) for name in ("one", "two"))
    assert two.provenance["processes"] == 2
    assert two.results_hash == one.results_hash
    assert [cell.error for cell in two.cells] == [cell.error for cell in one.cells]

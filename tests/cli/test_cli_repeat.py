"""`hguide sample --from`: options that the picture tells are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hguide.cli import main


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sampled")
    assert main(["sample", "--model", "toy", "--classes", "0", "--seeds", "3", "--out", str(folder)]) == 0
    return folder / "class-0_000003.png"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--guidance", "cfg(7)"], "--guidance"),
        (["--seeds", "3", "--classes", "0"], "--classes, --seeds"),
        (["--negative", "1", "--pair"], "--negative, --pair"),
        (["--top-k", "4", "--temperature", "0.5", "--top-p", "0.9"], "--temperature, --top-k, --top-p"),
        (["--prompts", "a pier"], "--prompts"),
        (["--model", "toy", "--npz", "all.npz"], "--model, --npz"),
        (["--load.size", "8"], "--load"),
        (["--deterministic", "--batch-size", "2"], "--batch-size, --deterministic"),
    ],
)
def test_options_that_the_picture_tells_are_refused(
    arguments: list[str], named: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", "--from", str(source), "--out", str(tmp_path / "b"), *arguments]) == 2
    assert f"and {named} cannot change them: leave out {named}, or sample without --from" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_options_of_the_repetition_itself_are_taken(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "where.yaml").write_text(f"out: {tmp_path / 'b'}\ndevice: cpu\n")
    arguments = ["sample", "--config", str(tmp_path / "where.yaml"), "--from", str(source), "--overwrite"]
    assert main(arguments) == 0
    assert "repeated bit for bit" in capsys.readouterr().out
    assert (tmp_path / "b" / source.name).is_file()

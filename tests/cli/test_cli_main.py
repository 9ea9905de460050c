"""The entry: help, errors, exit codes, and what is not imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hguide.cli import main
from hguide.cli.main import COMMANDS
from hguide.errors import ConfigError

OF_ONE_JOB = [name for name in COMMANDS if name not in ("train", "bench")]


def errors(capsys, *arguments: str) -> str:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert main([]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("name", OF_ONE_JOB)
def test_help_of_a_command(name, capsys):
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"usage: hguide {name}" in shown
    assert f"examples:\n  hguide {name}" in shown


def test_help_shows_defaults(capsys):
    main(["sample", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "default: landuse-var" in shown
    assert "default: 0-7" in shown


@pytest.mark.parametrize(("name", "job"), [("train", "generator"), ("bench", "guidance")])
def test_commands_of_several_jobs(name, job, capsys):
    assert main([name]) == 0
    assert f"  {job}" in capsys.readouterr().out
    assert f"hguide {name}: unknown job 'nope': " in errors(capsys, name, "nope")


def test_a_job_shows_the_fields_of_its_options(capsys):
    assert main(["bench", "guidance", "--help"]) == 0
    assert "--end_to_end" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smaple"], "unknown command: did you mean 'sample'"),
        (["sample", "--guidence", "cfg"], "unrecognized arguments: --guidence"),
        (["sample", "--model", "toyy"], "toyy: no such file"),
        (["sample", "--model", "toy", "--guidance", "cgf(1)"], "unknown guidance 'cgf': did you mean 'cfg'"),
        (["sample", "--model", "toy", "--guidance", "cfg(1"], "  cfg(1\n       ^"),
        (["sample", "--model", "toy", "--guidance", "ssg(-1)"], "strength is a finite number >= 0, got -1.0"),
        (["sample", "--model", "toy", "--classes", "9"], "a class is an integer from 0 to 3, got 9"),
        (["sample", "--model", "toy", "--seeds", ""], "seeds is empty"),
        (["sample", "--model", "toy", "--seeds", "1,1"], "seeds repeat"),
        (["sample", "--model", "toy", "--top-k", "1.5"], "top_k is a whole number, got 1.5"),
        (["sample", "--model", "toy", "--top-k", "99"], "top_k = 99 but there are 16 tokens"),
        (["sample", "--model", "toy", "--temperature", "warm"], "unknown temperature 'warm'"),
        (["sample", "--model", "toy", "--batch-size", "0"], "batch-size is at least 1"),
        (["sample", "--model", "tiny.pth", "--device", "gpu"], "device 'gpu' cannot be used here"),
        (["demo", "--model", "toy", "--guidances", "none; none"], "guidances repeat"),
        (["show", "sgs"], "nothing is called 'sgs': did you mean 'ssg'"),
        (["show", "dse(transform=harr)"], "unknown transform 'harr'"),
        (["parity", "nowhere"], "nowhere is not a directory"),
        (["convert", "a.pth", "b.pth"], "ends in .safetensors"),
        (["convert", "a.pth", "nowhere/b.safetensors"], "the folder nowhere is not there"),
        (["convert", "a.pth", "b.safetensors"], "a.pth: no such file"),
        (["train", "generator", "--data", "x"], "are required: out, tokenizer"),
    ],
)
def test_one_message_and_nothing_written(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = arguments[0]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"hguide {name}: ") or "%|" in err
    assert "Traceback" not in err
    assert message in err
    assert out == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_traceback_on_request():
    with pytest.raises(ConfigError, match="seeds repeat"):
        main(["sample", "--model", "toy", "--seeds", "1,1", "--traceback"])


def test_interruption(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hguide.cli.commands.list.run", interrupted)
    assert main(["list"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_yaml_then_flags(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("steps: 3\nname: cosine\n")
    assert main(["show", "--config", str(tmp_path / "c.yaml"), "linear", "--steps", "2"]) == 0
    assert "values over 2 steps" in capsys.readouterr().out
    (tmp_path / "c.yaml").write_text("stepz: 3\n")
    assert "'stepz'" in errors(capsys, "show", "--config", str(tmp_path / "c.yaml"), "linear")


def test_light_commands_import_nothing_heavy():
    code = (
        "import sys; from hguide.cli import main; main(['--help']); main(['list']); "
        "print(sorted({'lightning', 'matplotlib', 'PIL', 'pywt', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_python_dash_m():
    done = subprocess.run([sys.executable, "-m", "hguide", "--version"], capture_output=True, text=True, check=True)
    import hguide

    assert done.stdout.strip() == hguide.__version__

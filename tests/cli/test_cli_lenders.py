"""`--models`: lenders on the command line, and in the settings of a PNG."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from var_pair import write_pair

import hguide
from hguide.cli import main
from hguide.cli.lenders import lender_paths
from hguide.cli.settings import read_settings
from hguide.errors import ConfigError
from hguide.images import read_png, to_uint8, write_png
from hguide.provenance import model_hash

GUIDANCE = "cfg(2) | autoguidance(1.5)"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and a smaller one of the same tokenizer."""
    return write_pair(tmp_path_factory.mktemp("models"))


def sample(pair: tuple[Path, Path], out: Path, *arguments: str) -> int:
    strong, weak = pair
    general = ["sample", "--model", str(strong), "--classes", "1", "--seeds", "4-5", "--out", str(out)]
    return main([*general, "--guidance", GUIDANCE, "--models", f"weak={weak}", *arguments])


def test_sample_with_a_lender_and_its_settings(pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert sample(pair, tmp_path) == 0
    strong, weak = (hguide.load(path) for path in pair)
    wanted = hguide.generate(strong, [1, 1], GUIDANCE, seeds=[4, 5], models={"weak": weak})
    found = read_png(tmp_path / "class-1_000005.png")[0]
    assert (found == to_uint8(wanted)[1]).all()
    plain = hguide.generate(strong, [1, 1], "cfg(2)", seeds=[4, 5])
    assert (found != to_uint8(plain)[1]).any()
    settings = read_settings(tmp_path / "class-1_000005.png")
    assert settings.lenders == {"weak": str(pair[1])}
    assert settings.lender_hashes == {"weak": model_hash(weak)}


def test_from_repeats_with_the_lender(pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    sample(pair, tmp_path / "a")
    source = tmp_path / "a" / "class-1_000004.png"
    assert main(["sample", "--from", str(source), "--out", str(tmp_path / "b")]) == 0
    assert "repeated bit for bit" in capsys.readouterr().out
    pixels, text = read_png(source)
    facts = json.loads(text["hguide"])
    write_png(source, pixels, {"hguide": json.dumps({**facts, "lender_hashes": {"weak": "0" * 64}})})
    assert main(["sample", "--from", str(source), "--out", str(tmp_path / "c")]) == 2
    assert "weak.safetensors now is" in capsys.readouterr().err


def test_pictures_from_before_lenders_are_read(pair: tuple[Path, Path], tmp_path: Path) -> None:
    general = ["sample", "--model", str(pair[0]), "--classes", "1", "--seeds", "4", "--out", str(tmp_path)]
    main([*general, "--guidance", "cfg"])
    source = tmp_path / "class-1_000004.png"
    pixels, text = read_png(source)
    facts = {key: value for key, value in json.loads(text["hguide"]).items() if "lender" not in key}
    write_png(source, pixels, {"hguide": json.dumps(facts)})
    assert read_settings(source).lenders == {}
    assert main(["sample", "--from", str(source), "--out", str(tmp_path / "again")]) == 0


def test_another_lender_is_another_image(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    sample(pair, tmp_path)
    assert sample(pair, tmp_path, "--models", f"weak={pair[0]}") == 2
    assert "class-1_000004.png (lender_hashes)" in capsys.readouterr().err


def test_the_model_itself_as_lender_is_no_second_model(pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert sample(pair, tmp_path, "--models", f"weak={pair[0]}") == 0
    plain = hguide.generate(hguide.load(pair[0]), [1, 1], "cfg(2)", seeds=[4, 5])
    assert (read_png(tmp_path / "class-1_000004.png")[0] == to_uint8(plain)[0]).all()


@pytest.mark.parametrize("command", ["demo", "trace"])
def test_demo_and_trace_take_lenders(command: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    strong, weak = pair
    general = [command, "--model", str(strong), "--classes", "0", "--seeds", "1", "--out", str(tmp_path)]
    which = ["--guidances", f"none; {GUIDANCE}"] if command == "demo" else ["--guidance", GUIDANCE, "--pictures", "0"]
    assert main([*general, *which, "--models", f"weak={weak}"]) == 0
    assert json.loads((tmp_path / f"{command}.json").read_text())["lenders"] == {"weak": model_hash(hguide.load(weak))}


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("weak", "a lender is written NAME=MODEL, as weak=small.safetensors, got 'weak'"),
        ("weak=", "NAME=MODEL"),
        ("main=x.safetensors", "'main' is the model of the run itself"),
        ("weak=a; weak=b", "the lender 'weak' is given twice, a and b"),
        ("weka=x.safetensors", "models lends 'weka', but no guidance asks for it: did you mean 'weak'"),
        ("weak=nowhere.safetensors", "lender 'weak': nowhere.safetensors: no such file"),
        ("weak=toy", "they must be the same"),
    ],
)
def test_refusals(
    models: str, message: str, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert sample(pair, tmp_path / "s", "--models", models) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_guidance_without_its_lender(pair: tuple[Path, Path], capsys: pytest.CaptureFixture) -> None:
    assert main(["sample", "--model", str(pair[0]), "--guidance", "autoguidance(1.0)"]) == 2
    assert "models has no 'weak'" in capsys.readouterr().err


def test_forms_of_the_option() -> None:
    wanted = {"weak": "a.pth", "other": "b=c.pth"}
    assert lender_paths("weak=a.pth; other = b=c.pth") == wanted
    assert lender_paths(["weak=a.pth", "other=b=c.pth"]) == wanted
    assert lender_paths(wanted) == wanted
    assert lender_paths(None) == {}
    with pytest.raises(ConfigError, match="'main'"):
        lender_paths({"main": "x"})


def test_lenders_in_a_yaml_file(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"models:\n  weak: {pair[1]}\nguidance: autoguidance(1.0)\nseeds: 1\nclasses: 0\n")
    config = ["--config", str(tmp_path / "c.yaml")]
    assert main(["sample", *config, "--model", str(pair[0]), "--out", str(tmp_path / "s")]) == 0
    assert read_settings(tmp_path / "s" / "class-0_000001.png").lenders == {"weak": str(pair[1])}

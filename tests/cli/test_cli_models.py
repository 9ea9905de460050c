"""`hguide edit`, `convert`, `show`, `list` on a tiny random VAR model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import hguide
from hguide.backends.checkpoints import read_metadata
from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.var import VAR, TokenizerConfig, TransformerConfig, VARTokenizer, VARTransformer
from hguide.backends.var.files import save
from hguide.cli import main
from hguide.images import read_png, write_png
from hguide.provenance import model_hash

SIDES = (1, 2, 3, 4)
NAMES = ("airplane", "beach", "forest")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = TransformerConfig(
            patch_nums=SIDES, depth=1, width=16, heads=2, classes=3, vocabulary=16, latent_channels=4
        )
        pictures = TokenizerConfig(
            AutoencoderConfig(32, (1, 1), blocks=1, latent_channels=4), vocabulary=16, patch_nums=SIDES
        )
        model = VAR(VARTransformer(shape), VARTokenizer(pictures), name="tiny", classes=NAMES)
        for parameter in [*model.transformer.parameters(), *model.tokenizer.parameters()]:
            parameter.data.normal_(std=0.2)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save(model, path, facts={"training": {"steps": 7}})
    return path


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "photo.png"
    write_png(path, np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8))
    return path


def edit(tiny, picture, out, *arguments: str) -> int:
    return main(["edit", str(picture), "--model", str(tiny), "--out", str(out), "--seeds", "0-1", *arguments])


def test_edit_writes_input_edits_and_sheet(tiny, picture, tmp_path):
    assert edit(tiny, picture, tmp_path / "e", "--class", "beach") == 0
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == [
        "edit_000000.png",
        "edit_000001.png",
        "input.png",
        "sheet.png",
    ]
    pixels, text = read_png(tmp_path / "e" / "edit_000001.png")
    assert pixels.shape == (8, 8, 3)
    assert (text["edit"], text["condition"], text["seed"]) == ("inpaint", "beach", "1")


def test_keeping_everything_returns_the_reconstruction(tiny, picture, tmp_path):
    assert edit(tiny, picture, tmp_path / "e", "--outpaint", "--box", "0,0,1,1") == 0
    first, second = (read_png(tmp_path / "e" / f"edit_00000{seed}.png")[0] for seed in (0, 1))
    assert (first == second).all()
    assert edit(tiny, picture, tmp_path / "f", "--box", "0,0,1,1") == 0
    first, second = (read_png(tmp_path / "f" / f"edit_00000{seed}.png")[0] for seed in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--box", "0,0,2,1"], "a box is y0,x0,y1,x1"),
        (["--box", "0,0,1"], "a box is four numbers"),
        (["--class", "forrest"], "unknown class 'forrest': did you mean 'forest'"),
        (["--class", "3"], "from 0 to 2, got 3"),
        (["--inpaint", "--outpaint"], "not two"),
        (["--prefix", "2", "--box", "0,0,1,1"], "--prefix keeps steps of the whole picture: leave out --box"),
        (["--guidance", "autoguidance(1)"], "models has no 'weak'"),
        (["--models", "weak=nope"], "no guidance asks for it"),
        (["--model", "toy"], "toy cannot edit pictures"),
    ],
)
def test_edit_refusals(arguments, message, tiny, picture, tmp_path, capsys):
    assert edit(tiny, picture, tmp_path / "e", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


def test_edit_overwrites_only_when_asked(tiny, picture, tmp_path, capsys):
    edit(tiny, picture, tmp_path / "e")
    assert edit(tiny, picture, tmp_path / "e") == 2
    assert "is there already" in capsys.readouterr().err
    assert edit(tiny, picture, tmp_path / "e", "--overwrite") == 0


def test_pictures_that_are_none(tiny, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    for name, message in (("text.png", "not a picture"), ("nope.png", "no such file")):
        assert edit(tiny, tmp_path / name, tmp_path / "e") == 2
        assert message in capsys.readouterr().err


def test_convert_keeps_model_and_training(tiny, tmp_path, capsys):
    out = tmp_path / "copy.safetensors"
    assert main(["convert", str(tiny), str(out)]) == 0
    assert model_hash(hguide.load(out)) == model_hash(hguide.load(tiny))
    assert main(["convert", str(tiny), str(out)]) == 2
    assert "there already" in capsys.readouterr().err
    assert main(["convert", str(tiny), str(out), "--overwrite", "--dtype", "float16"]) == 0
    assert out.stat().st_size < 0.7 * tiny.stat().st_size
    main(["show", str(out)])
    assert "steps: 7" in capsys.readouterr().out


def test_edit_takes_lenders(tiny, picture, tmp_path):
    """Autoguidance by the model itself pushes nowhere: the edit is that without guidance."""
    kept = ["--box", "0,0,1,0.5"]
    for name, extra in (("box", kept), ("prefix", ["--prefix", "2"])):
        lent = ["--guidance", "autoguidance(1)", "--models", f"weak={tiny}"]
        assert edit(tiny, picture, tmp_path / name, *extra, *lent) == 0
        assert edit(tiny, picture, tmp_path / f"{name}-none", *extra, "--guidance", "none") == 0
        pixels, text = read_png(tmp_path / name / "edit_000001.png")
        assert (pixels == read_png(tmp_path / f"{name}-none" / "edit_000001.png")[0]).all()
        assert json.loads(text["settings"])["lenders"] == {"weak": str(tiny)}


@pytest.mark.parametrize("name", ["landuse-var", "landuse-var-weak"])
def test_convert_takes_bundled_names(name, tmp_path):
    out = tmp_path / "copy.safetensors"
    assert main(["convert", name, str(out), "--dtype", "float16"]) == 0
    assert model_hash(hguide.load(out)) == model_hash(hguide.load(name))
    assert json.loads(read_metadata(out)["hguide"])["training"]


def test_convert_tells_bundled_models_apart(tmp_path, capsys):
    assert main(["convert", "landuse-hart", str(tmp_path / "x.safetensors")]) == 2
    assert "a model of the family 'hart', of which nothing is converted" in capsys.readouterr().err
    assert main(["convert", "landuse-vra", str(tmp_path / "x.safetensors")]) == 2
    assert "Bundled models: did you mean 'landuse-var'" in capsys.readouterr().err


def test_sample_by_class_name(tiny, tmp_path):
    assert main(["sample", "--model", str(tiny), "--classes", "forest", "--seeds", "4", "--out", str(tmp_path)]) == 0
    source = tmp_path / "forest_000004.png"
    assert main(["sample", "--from", str(source), "--out", str(tmp_path / "again")]) == 0


def test_show_model(tiny, capsys):
    assert main(["show", str(tiny)]) == 0
    shown = capsys.readouterr().out
    assert f"hash: {model_hash(hguide.load(tiny))}" in shown
    assert "scales: 1x1, 2x2, 3x3, 4x4" in shown
    assert "classes: airplane, beach, forest" in shown
    assert "  depth: 1" in shown


def test_show_entries(capsys):
    main(["show", "cosine(2)", "--steps", "2"])
    assert "text form: cosine(2.0)" in (shown := capsys.readouterr().out)
    assert "   1  1.41421" in shown
    main(["show", "dse(transform=haar)", "--sides", "13,16"])
    assert "DCT frequencies 8-12 (height), 8-12 (width) are lost" in capsys.readouterr().out
    main(["show", "ssg"])
    options = capsys.readouterr().out.partition("options:\n")[2].splitlines()
    assert (options[0].split()[0], options[0].split()[-1]) == ("strength", "1.0")
    assert options[1].split()[-2:] == ["default", "dse"]
    main(["show", "table"])
    assert main(["show", "toy"]) == 0


def test_list_names_every_entry(capsys):
    main(["list"])
    shown = capsys.readouterr().out
    for kind in ("models:", "guidances:", "priors:", "schedules:", "backends:"):
        assert kind in shown
    for name in ("landuse-var", "ssg", "dse", "cosine", "toy"):
        assert f"  {name} " in shown
    main(["list", "schedules"])
    assert "ssg" not in capsys.readouterr().out.split("\n")[1]

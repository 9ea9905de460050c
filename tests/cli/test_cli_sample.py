"""`hguide sample`: files, their settings, repetition and resuming."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

import hguide
from hguide.cli import main
from hguide.cli.commands.sample import file_names
from hguide.cli.settings import read_settings
from hguide.images import read_png, to_uint8, write_png

TOY = ["sample", "--model", "toy"]


def sample(folder, *arguments: str) -> int:
    return main([*TOY, "--out", str(folder), *arguments])


def test_one_png_per_class_and_seed(tmp_path):
    assert sample(tmp_path, "--classes", "0-1", "--seeds", "0-2", "--guidance", "cfg(2)", "--batch-size", "4") == 0
    assert len(list(tmp_path.glob("*.png"))) == 6
    wanted = to_uint8(hguide.generate(hguide.load("toy"), 1, "cfg(2)", seeds=[2]))[0]
    assert (read_png(tmp_path / "class-1_000002.png")[0] == wanted).all()


def test_settings_inside(tmp_path):
    sample(tmp_path, "--classes", "2", "--seeds", "5", "--guidance", "cfg | ssg(0.5)", "--top-k", "[4,4,4,4,4]")
    text = read_png(tmp_path / "class-2_000005.png")[1]
    assert text["guidance"] == "cfg(1.5) | ssg(0.5)"
    assert (text["model"], text["seed"], text["condition"]) == ("toy", "5", "class 2")
    assert json.loads(text["sampler"]) == {"temperature": 1.0, "top_k": [4, 4, 4, 4, 4], "top_p": 0.0}
    facts = json.loads(text["hguide"])
    assert len(facts["model_hash"]) == 64
    assert facts["versions"]["hguide"] == hguide.__version__


@pytest.mark.parametrize("extra", [[], ["--deterministic"], ["--temperature", "linear(0.9)", "--top-p", "0.9"]])
def test_from_repeats_bit_for_bit(extra, tmp_path, capsys):
    sample(tmp_path / "a", "--classes", "0-2", "--seeds", "3,8", "--batch-size", "4", *extra)
    source = tmp_path / "a" / "class-1_000008.png"
    assert main(["sample", "--from", str(source), "--out", str(tmp_path / "b")]) == 0
    assert "repeated bit for bit" in capsys.readouterr().out
    assert (read_png(tmp_path / "b" / source.name)[0] == read_png(source)[0]).all()
    before = source.read_bytes()
    assert main(["sample", "--from", str(source), "--out", str(tmp_path / "a")]) == 0
    assert source.read_bytes() == before


def test_from_tells_a_difference(tmp_path, capsys):
    sample(tmp_path, "--classes", "0", "--seeds", "0")
    source = tmp_path / "class-0_000000.png"
    pixels, text = read_png(source)
    changed = pixels.copy()
    changed[0, 0, 0] ^= 1
    write_png(source, changed, text)
    assert main(["sample", "--from", str(source), "--out", str(tmp_path / "b")]) == 1
    assert "differs in 1 of 1024 pixels, by at most 1 of 255" in capsys.readouterr().out


def test_from_refuses_other_weights_and_foreign_files(tmp_path, capsys):
    sample(tmp_path, "--classes", "0", "--seeds", "0")
    source = tmp_path / "class-0_000000.png"
    pixels, text = read_png(source)
    write_png(source, pixels, {"hguide": json.dumps({**json.loads(text["hguide"]), "model_hash": "0" * 64})})
    assert main(["sample", "--from", str(source)]) == 2
    assert "cannot be repeated with other weights" in capsys.readouterr().err
    write_png(source, pixels)
    assert main(["sample", "--from", str(source)]) == 2
    assert "carries no settings" in capsys.readouterr().err


def test_resume_samples_what_is_missing(tmp_path, capsys):
    sample(tmp_path, "--classes", "0", "--seeds", "0-1")
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.png")}
    assert sample(tmp_path, "--classes", "0", "--seeds", "0-3") == 0
    assert "2 sampled, 2 there already" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_other_settings_are_refused_before_sampling(tmp_path, capsys):
    sample(tmp_path, "--classes", "0", "--seeds", "1")
    before = (tmp_path / "class-0_000001.png").read_bytes()
    assert sample(tmp_path, "--classes", "0", "--seeds", "0-1", "--guidance", "none") == 2
    assert "class-0_000001.png (guidance)" in capsys.readouterr().err
    assert (tmp_path / "class-0_000001.png").read_bytes() == before
    assert not (tmp_path / "class-0_000000.png").exists()
    assert sample(tmp_path, "--classes", "0", "--seeds", "0-1", "--guidance", "none", "--overwrite") == 0
    assert read_settings(tmp_path / "class-0_000001.png").guidance == "none"


def test_pair_goes_through_the_classes(tmp_path):
    sample(tmp_path, "--classes", "0-2", "--seeds", "0-3", "--pair")
    names = sorted(path.stem for path in tmp_path.glob("*.png"))
    assert names == ["class-0_000000", "class-0_000003", "class-1_000001", "class-2_000002"]


def test_npz_is_bytes_in_the_order_of_the_files(tmp_path):
    sample(tmp_path, "--classes", "0-1", "--seeds", "0-1", "--npz", str(tmp_path / "all.npz"))
    images = np.load(tmp_path / "all.npz")["arr_0"]
    assert (images.dtype, images.shape) == (np.uint8, (4, 32, 32, 3))
    assert (images[3] == read_png(tmp_path / "class-1_000001.png")[0]).all()


def test_unwritable_folder_is_found_before_sampling(tmp_path, capsys, monkeypatch):
    def sampled(*_, **__):
        raise AssertionError("sampled before the folder was tried")

    monkeypatch.setattr("hguide.cli.batches.run", sampled)
    (tmp_path / "file").write_text("")
    for command in (TOY, ["demo", "--model", "toy"]):
        assert main([*command, "--out", str(tmp_path / "file" / "in")]) == 2
        assert "cannot write to the folder" in capsys.readouterr().err


def test_nan_stops_and_names_the_step(tmp_path, capsys, monkeypatch):
    from hguide.backends.toy import ToyGenerator

    truth = ToyGenerator.truth
    monkeypatch.setattr(
        ToyGenerator, "truth", lambda self, state, step, stream: truth(self, state, step, stream) / (step.index != 2)
    )
    assert sample(tmp_path, "--classes", "0", "--seeds", "0") == 2
    assert "step 2, call 0: not finite" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_file_names():
    def named(*names: str, seed: int = 0) -> list[str]:
        return file_names([SimpleNamespace(name=name, seed=seed) for name in names])

    assert named("beach", seed=3) == ["beach_000003.png"]
    assert named("a dog / a cat!", seed=1234567) == ["a-dog-a-cat_1234567.png"]
    assert len({*named("x" * 90 + "a", "x" * 90 + "b")}) == 2
    alike = named("a red, car", "a red car", "A red car!", "beach")
    assert len({name.lower() for name in alike}) == 4
    assert alike[3] == "beach_000000.png"
    assert named("a red car") == ["a-red-car_000000.png"]

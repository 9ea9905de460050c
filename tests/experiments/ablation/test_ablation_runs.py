"""Whole runs on the toy: resumed, extended, damaged, failing."""

from __future__ import annotations

import json

import numpy as np
import pytest

import hguide
from hguide.cli import main
from hguide.experiments.ablation.results import Results
from hguide.experiments.ablation.store import Store
from hguide.images import to_uint8


def ablate(path, out, *arguments: str) -> int:
    return main(["ablate", str(path), "--out", str(out), "--device", "cpu", *arguments])


def stamps(out) -> dict:
    return {path: path.stat().st_mtime_ns for path in out.rglob("block_*.npz")}


def test_a_run_and_its_images(written, tmp_path, capsys):
    assert ablate(written(), tmp_path / "out") == 0
    shown = capsys.readouterr().out
    results = Results.read(tmp_path / "out")
    assert [cell.label for cell in results.cells] == ["none", "cfg(2.0) | ssg(0.5)"]
    assert "none (baseline)" in shown
    cell = results.cells[1]
    assert (cell.status, cell.count, cell.streams, cell.network_calls) == ("done", 8, 2, 5)
    assert set(cell.measures) == {"kd", "score"}
    assert cell.varied == ("guidance",)
    assert [(each.cell, each.against) for each in results.comparisons] == [(cell.hash, results.baseline)] * 2
    assert results.classes["rule"] == "seed s has class s mod 4"
    assert results.provenance["reference"]["crops"] == 8
    assert results.floor == {}
    wanted = hguide.generate(hguide.load("toy"), [0, 1, 2, 3], "cfg(2.0) | ssg(0.5)", seeds=range(4, 8))
    store = Store(tmp_path / "out")
    assert (store.image(cell.hash, 6) == to_uint8(wanted)[2]).all()
    note = json.loads((store.cell(cell.hash) / "cell.json").read_text())
    assert (note["status"], note["facts"]["guidance"]) == ("done", "cfg(2.0) | ssg(0.5)")


def test_again_samples_nothing_and_gives_the_same(written, tmp_path):
    path, out = written(), tmp_path / "out"
    ablate(path, out)
    before, first = stamps(out), (out / "results.json").read_bytes()
    ablate(path, out)
    assert stamps(out) == before
    assert Results.read(out).results_hash == Results.from_json(first.decode()).results_hash


def test_more_cells_seeds_and_measures_use_what_is_there(written, tmp_path):
    out = tmp_path / "out"
    ablate(written(), out)
    before, old = stamps(out), Results.read(out)
    more = written(
        guidance=["cfg(2.0) | ssg(0.5)", "none", "cfg(1.0)"],
        seeds="0-11",
        measures=["kd", "fd", "score"],
        baseline="none",
    )
    assert ablate(more, out) == 0
    new = Results.read(out)
    assert {path: stamp for path, stamp in stamps(out).items() if path in before} == before
    assert [cell.hash for cell in new.cells[:2]] == [cell.hash for cell in reversed(old.cells)]
    assert new.baseline == old.baseline
    fresh = tmp_path / "fresh"
    ablate(more, fresh)
    assert Results.read(fresh).results_hash == new.results_hash
    # The first table comes back too: nothing of it was replaced.
    ablate(written(), out)
    assert Results.read(out).results_hash == old.results_hash


def test_a_limit_takes_the_first_seeds(written, tmp_path):
    out = tmp_path / "out"
    ablate(written(seeds="2-11"), out, "--limit", "5")
    results = Results.read(out)
    assert results.seeds == {"first": 2, "count": 5, "text": "2-11, first 5", "listed": [2, 3, 4, 5, 6]}
    assert results.cells[0].count == 5
    assert sorted(path.name for path in stamps(out) if path.parent.name == results.baseline) == [
        "block_000000.npz",
        "block_000004.npz",
    ]
    ablate(written("other.yaml", seeds="2-6"), tmp_path / "other")
    same = Results.read(tmp_path / "other")
    assert same.cells[0].measures == results.cells[0].measures
    stores = Store(out), Store(tmp_path / "other")
    one, other = (store.image(results.baseline, 7) for store in stores)
    assert np.array_equal(one, other)


@pytest.mark.parametrize("what", ["images", "features"])
def test_a_damaged_file_is_found_and_made_again(what, written, tmp_path, capsys):
    path, out = written(), tmp_path / "out"
    ablate(path, out)
    whole = Results.read(out)
    found = sorted(out.glob("cells/*/block_000004.npz" if what == "images" else "cells/*/*/block_000004.npz"))[0]
    content = found.read_bytes()
    found.write_bytes(content[:-100] + b"x" + content[-99:])
    capsys.readouterr()
    assert ablate(path, out) == 0
    told = capsys.readouterr().err
    assert f"{found} is damaged" in told
    assert ("images are sampled again" if what == "images" else "features are computed again") in told
    assert Results.read(out).results_hash == whole.results_hash
    assert found.read_bytes() == content


def test_a_cell_that_fails_leaves_the_others(written, tmp_path, capsys):
    guidance = ["none", "slg", "cfg(1e38) | cfg(w=1e38)", "cfg(2.0)"]
    path = written(guidance=guidance, sampler=[{}, {"top_k": 99}])
    assert ablate(path, tmp_path / "out") == 1
    results = Results.read(tmp_path / "out")
    found = {(cell.guidance, cell.axes["sampler"]): cell for cell in results.cells}
    assert found["none", "all tokens"].status == found["cfg(2.0)", "all tokens"].status == "done"
    assert "no perturbation 'slg'" in found["slg(1.0)", "all tokens"].error
    assert "not finite" in found["cfg(1e+38) | cfg(w=1e+38)", "all tokens"].error
    assert "top_k is 99 at step 0, but there are 16 tokens" in found["none", "top_k=99"].error
    assert all(not cell.measures and cell.count == 0 for cell in results.cells if cell.status == "failed")
    assert "failed: " in capsys.readouterr().out
    assert main(["validate", str(path)]) == 1
    assert capsys.readouterr().out.count("cannot run: ") == 5


def test_axes_of_sampling(written, tmp_path):
    temperature = ["entropy(theta=0.8)", "linear(1.0)", [1.0, 0.9, 0.8, 0.7, 0.6], [1.0, 0.9]]
    path = written(guidance="none", temperature=temperature, seeds="0-3", sampler={"top_k": 4, "top_p": 0.9})
    assert ablate(path, tmp_path / "out") == 1
    *fine, short = Results.read(tmp_path / "out").cells
    assert [cell.status for cell in fine] == ["done"] * 3
    assert short.error == "Sampler: temperature lists 2 numbers, the generator has 5 steps."
    assert fine[0].varied == ("temperature",)
    assert fine[0].axes["sampler"] == "top_k=4, top_p=0.9"
    assert fine[0].label == "none, temperature entropy(theta=0.8)"


def test_pictures_of_another_size_than_the_reference(written, tmp_path):
    assert ablate(written(reference=None), tmp_path / "out") == 1
    error = Results.read(tmp_path / "out").cells[0].error
    assert "its pictures are 32x32, those of the reference 64x64" in error


def test_a_dry_run_says_what_is_there(written, tmp_path, capsys):
    path, out = written(seeds="0-9"), tmp_path / "out"
    assert ablate(path, out, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "2 cells, 24 images (2 of each cell only fill their block of 4), 0 there already." in shown
    assert "on 1 process." in shown
    assert not out.exists()
    ablate(path, out, "--limit", "4")
    capsys.readouterr()
    ablate(path, out, "--dry-run", "--devices", "2")
    shown = capsys.readouterr().out
    assert "24 images (2 of each cell only fill their block of 4), 8 there already." in shown
    assert "on 2 processes." in shown
    ablate(written(guidance=["none", "slg"]), out, "--dry-run")
    assert "cannot run: slg(1.0): " in capsys.readouterr().out


def test_the_hash_is_of_what_an_image_follows_from(written, tmp_path, capsys):
    def hashes(**changes) -> list[str]:
        assert main(["validate", str(written(**changes))]) == 0
        return [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-1]]

    plain = hashes()
    assert hashes(labels=["a", "b"], seeds="4-15", measures=["fd"], replicates=3, threads=2, title="t") == plain
    assert hashes(classes="0-3") == plain
    others = [
        hashes(block=2),
        hashes(deterministic=True),
        hashes(classes=[0, 1]),
        hashes(temperature=0.9),
        hashes(sampler={"top_k": 4}),
        hashes(guidance=["cfg(1.0)", "cfg(2.0)"], negative=1),
    ]
    assert not {name for other in others for name in other} & set(plain)


def test_mistakes_that_need_the_model(written, capsys):
    def told(**changes) -> str:
        assert main(["validate", str(written(**changes))]) == 2
        return capsys.readouterr().err

    assert "a class is an integer from 0 to 3, got 7" in told(classes=[7])
    assert "line 1: model 'tyo': " in told(model="tyo")
    assert "measures need at least 4 images, got 2" in told(seeds="0-1")
    assert "33 crops are asked for, the reference has 32" in told(seeds="0-32")
    assert "accuracy: the classes of no model" in told(measures=["accuracy"])
    assert "nofile.safetensors" in told(features="nofile.safetensors")
    assert "line 7: nowhere.npz: expected an .npz with pictures" in told(reference="nowhere.npz")
    assert "no SqueezeNet 1.1 weights at nothing" in told(repeat_features="nothing")
    both = told(model="tyo", features="nofile.safetensors")
    assert "'tyo'" in both
    assert "nofile.safetensors" in both

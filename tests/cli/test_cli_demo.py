"""`hguide demo`: numbers, pictures and the record that repeats them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import hguide
from hguide.cli import main
from hguide.cli.batches import batches, sample_batches
from hguide.cli.residual import prior_of, residual_energy, trace
from hguide.experiments.bench.timed_guidance import TimedGuidance
from hguide.experiments.bench.timing import Spans
from hguide.guidance import parse
from hguide.images import read_png, to_uint8
from hguide.priors import DSE, Area
from hguide.sampling import Sampler

TOLERANCE = {"energy": 1e-5}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    guidances = "none; cfg(2.0); cfg(2.0) | ssg(0.5)"
    arguments = ["--seeds", "0-1", "--classes", "0-2", "--guidances", guidances, "--out", str(folder)]
    assert main(["demo", "--model", "toy", *arguments]) == 0
    return folder


def test_record(demo):
    record = json.loads((demo / "demo.json").read_text())
    assert record["schema"] == "hguide.demo/1"
    assert [row["guidance"] for row in record["results"]] == ["none", "cfg(2.0)", "cfg(2.0) | ssg(0.5)"]
    assert all(row["images"] == 6 and row["seconds_per_image"] > 0 for row in record["results"])
    shares = [row["guidance_seconds_per_image"] / row["seconds_per_image"] for row in record["results"]]
    assert all(0 < share < 1 for share in shares)
    assert (record["classes"], record["seeds"]) == ([0, 1, 2], [0, 1])
    assert record["sampler"] == {"temperature": 1.0, "top_k": 0, "top_p": 0.0}
    assert len(record["model"]["hash"]) == 64
    assert {"hguide", "python", "torch"} <= set(record["versions"])
    assert {"type", "name", "threads"} <= set(record["device"])
    assert (record["deterministic"], record["batch_size"], record["classifier"]) == (False, 32, None)
    steps = record["residual"]["steps"]
    assert [step["grid"] for step in steps] == [[1, 1], [2, 2], [3, 3], [5, 5], [8, 8]]
    assert steps[0]["energy"] is None
    assert all(step["energy"] > 0 for step in steps[1:])


def test_grid_shows_the_samples(demo):
    """The sheet holds the image that `generate` makes of a class, seed and guidance, four times as large."""
    sheet = read_png(demo / "grid.png")[0]
    image = to_uint8(hguide.generate(hguide.load("toy"), 2, "cfg(2.0)", seeds=[1]))[0]
    wanted = image.repeat(4, axis=0).repeat(4, axis=1)
    corners = np.argwhere((sheet == wanted[0, 0]).all(-1))
    cells = [sheet[y : y + len(wanted), x : x + len(wanted)] for y, x in corners]
    assert any(cell.shape == wanted.shape and (cell == wanted).all() for cell in cells)


def test_stdout_and_stderr(tmp_path, capsys):
    main(["demo", "--model", "toy", "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split()[:2] == ["guidance", "images"]
    assert str(tmp_path / "grid.png") in out
    assert "image/s" in err


def test_energy_by_hand():
    toy, found = hguide.load("toy"), []
    steps = trace(toy, (1, 4), parse("cfg(1.5) | ssg(0.7)"), Sampler())
    kept = []
    hguide.generate(toy, 1, "cfg(1.5) | ssg(0.7)", seeds=[4], on_step=lambda record: kept.append(record.keep()))
    before = None
    for record in kept:
        t = 1.5 * record.step.index / (record.step.count - 1)
        logits = (1 + t) * record.predictions[hguide.COND].double()
        if t > 0:
            logits -= t * record.predictions[hguide.UNCOND].double()
        if before is not None:
            matrix = DSE().matrix(before.shape[1:3], record.step.grid)
            carried = (matrix @ before.flatten(1, 2)).reshape(logits.shape)
            apart = logits - carried
            found.append(float((apart - apart.mean(-1, keepdim=True)).square().sum(-1).mean()))
        before = logits
    assert [step.energy for step in steps[1:]] == pytest.approx(found, rel=TOLERANCE["energy"])


def test_energy_ignores_a_constant_per_token():
    logits, prior = torch.randn(2, 1, 3, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    shifted = logits + torch.arange(9.0).reshape(1, 3, 3, 1)
    assert torch.allclose(residual_energy(logits, prior)[0], residual_energy(shifted, prior)[0], rtol=1e-4)


def test_prior_of_a_composition():
    assert prior_of(parse("cfg | ssg(prior=area)")) == Area()
    assert prior_of(parse("cfg")) == DSE()


def test_timing_changes_nothing():
    toy, guidance = hguide.load("toy"), parse("cfg | ssg")
    spans = Spans(toy.device)
    timed = TimedGuidance(guidance, spans)
    parts = batches(toy, [(0, 1), (2, 1), (1, 7)], 2, False)
    assert [len(part) for part in parts] == [2, 1]
    pictures = torch.cat([batch.images for batch in sample_batches(toy, parts, timed, Sampler())])
    wanted = [hguide.generate(toy, condition, guidance, seeds=[seed]) for condition, seed in [(0, 1), (2, 1), (1, 7)]]
    assert torch.equal(pictures, torch.cat(wanted))
    assert spans.total_ms() > 0
    assert str(timed) == str(guidance)

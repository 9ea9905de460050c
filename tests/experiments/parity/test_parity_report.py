"""The report, its verdicts and its tolerances."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hguide.experiments.parity.recording import Recording, largest_difference
from hguide.experiments.parity.report import MISS, NOT_COMPARED, OK, Comparison, Report
from hguide.experiments.parity.run import FAMILIES
from hguide.experiments.parity.summaries import summary
from hguide.experiments.parity.tolerances import tolerance_of

GOLDEN = Path(__file__).parents[2] / "golden" / "var"
LN_100 = math.log(100.0)


def test_scales_share_a_line_and_a_miss_has_its_own() -> None:
    rows = [Comparison("run", f"s{k}.block{j}_out", 5e-7 * (k + j), 1e-5) for k in range(11) for j in range(2)]
    rows[3] = replace(rows[3], error=2e-3)
    report = Report("here", (*rows, Comparison("run", "s4.tokens", 3.0), Comparison("run", "f", None, 0.0, "input")))
    header, gathered, first, second, left, last = report.text().splitlines()
    assert header.split() == ["case", "quantity", "tensors", "max", "error", "tolerance", "verdict"]
    assert gathered.split() == ["run", "s*.block*_out", "21", "5.5e-06", "1e-05", "ok"]
    assert first.split() == ["run", "s1.block1_out", "1", "2.0e-03", "1e-05", "MISS"]
    assert second.split() == ["run", "s4.tokens", "1", "3", "differ", "exact", "MISS"]
    assert left.split() == ["run", "f", "1", "-", "-", "not", "compared", "(input)"]
    assert last == "here: FAILED, 23 compared, 2 missed, 1 not compared."
    assert len(report.text(every=True).splitlines()) == 26


def test_verdicts() -> None:
    assert Comparison("c", "q", 0.0).verdict == OK
    assert Comparison("c", "q", 1e-5, 1e-5).verdict == OK
    assert Comparison("c", "q", math.nan, 1e-5).verdict == MISS
    assert Comparison("c", "q", None).verdict == NOT_COMPARED
    assert not Report("d", ()).ok
    assert not Report("d", (Comparison("c", "q", None),)).ok
    assert Report("d", (Comparison("c", "q", 0.0), Comparison("c", "r", None))).ok


def test_infinities_and_nan_in_the_largest_difference() -> None:
    inf, nan = math.inf, math.nan
    assert largest_difference(torch.tensor([-inf, 1.0]), torch.tensor([-inf, 1.5])) == 0.5
    assert largest_difference(torch.tensor([-inf]), torch.tensor([2.0])) == inf
    assert largest_difference(torch.tensor([-inf]), torch.tensor([inf])) == inf
    assert largest_difference(torch.tensor([nan]), torch.tensor([nan])) == inf


def test_parts_and_sums_of_large_tensors() -> None:
    logits, image = torch.randn(2, 5, 7), torch.rand(1, 3, 128, 128)
    assert summary("sub", logits, torch.zeros(2, 2, 4)).equal(logits[:, [0, 4], :4])
    assert summary("lse", logits, torch.zeros(2, 5)).allclose(logits.exp().sum(-1).log())
    assert summary("crop", image, torch.zeros(1, 3, 16, 8)).equal(image[..., 96:112, 96:104])
    assert summary("pool4", image, torch.zeros(1, 3, 32, 32))[0, 1, 2, 3].isclose(image[0, 1, 8:12, 12:16].mean())
    assert summary("pool", image, image) is None
    assert summary("in", image, image) is None
    assert summary("mask", image, image) is None


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        *(("s3.tokens", 0.0), ("s3.kept", 0.0), ("edit_mask", 0.0), ("check.decoder.f", 0.0), ("k5.filtered", 0.0)),
        *(("s3.x_in", 1e-5), ("sub.f_hat_last", 1e-5), ("s10.block3_out", 5e-5), ("tf.logits", 5e-5)),
        *(("s3.logits_cfg", 5e-4), ("s3.logits_cond_sub", 1e-4), ("image_pool8", 1e-4), ("grad_f_hat", 1e-4)),
    ],
)
def test_tolerances(name: str, tolerance: float) -> None:
    assert tolerance_of(name) == tolerance


def test_a_quantity_that_was_not_recorded_is_not_entered() -> None:
    recording = Recording("case", {"a": torch.zeros(2)})
    recording.compare("b", torch.ones(2))
    assert [(each.quantity, each.verdict) for each in recording.finish("left")] == [("a", NOT_COMPARED)]


def test_families_are_told_by_their_configuration() -> None:
    assert FAMILIES["var"].recognises({})
    assert FAMILIES["var"].recognises(json.loads((GOLDEN / "vae_full" / "config.json").read_text()))
    assert not FAMILIES["var"].recognises({"cases": {}, "tokenizer": {}})

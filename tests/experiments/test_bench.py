"""The guidance benchmark: its verdicts, its arithmetic and a run at tiny shapes. No test depends on how fast it is."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hguide
from hguide.errors import ConfigError, NumericalError
from hguide.experiments.bench import growth, update
from hguide.experiments.bench.end_to_end import GUIDANCE, TimedGuidance, Unguided, guidance_share
from hguide.experiments.bench.floors import products
from hguide.experiments.bench.guidance import BenchConfig, run
from hguide.experiments.bench.machine import threads
from hguide.experiments.bench.report import MET, NOT_MEASURED, NOT_MET, BenchReport, BenchRow
from hguide.experiments.bench.shapes import SHAPES, Shapes
from hguide.experiments.bench.timing import Spans, Timing, measure
from hguide.guidance import parse
from hguide.priors import DSE
from hguide.streams import COND

CPU = torch.device("cpu")
TINY = {"tiny": Shapes("tiny", (1, 2, 3, 5), 8, (1, 2)), "narrow": Shapes("narrow", (2, 12), 3, (1,))}
ROW_KEYS = {
    "what", "quantity", "ratio", "target", "at_least", "ms", "against_ms", "samples", "note", "shown",
    "quickest_ratio", "valid", "details", "device", "predicted", "verdict",
}  # fmt: skip


def row(ratio, target, at_least=False, **options):
    return BenchRow("row", "update / floor", ratio, target, at_least, **options)


def report(*rows):
    machine = {"name": "m", "type": "cpu", "processor": "p", "threads": 1, "cores": 8, "instructions": "i"}
    machine |= {"load_before": 0.5, "versions": {"torch": "2"}}
    return BenchReport(machine, {"dtype": "float32"}, {"bandwidth": 1e10, "gemm": 1e11}, rows, 1.0)


@pytest.fixture(scope="module")
def full():
    return run(BenchConfig(repeat=2, growth=False), shapes=TINY)


@pytest.mark.parametrize(
    ("ratio", "target", "at_least", "verdict"),
    [
        (1.5, 1.5, False, MET),
        (1.51, 1.5, False, NOT_MET),
        (20.0, 20.0, True, MET),
        (19.9, 20.0, True, NOT_MET),
        (None, 1.5, False, NOT_MEASURED),
        (math.nan, 1.5, False, NOT_MEASURED),
        (math.inf, 20.0, True, NOT_MEASURED),
    ],
)
def test_verdict(ratio, target, at_least, verdict):
    assert row(ratio, target, at_least).verdict == verdict


def test_a_disturbed_figure_meets_nothing():
    disturbed = row(0.2, 1.5, valid=False)
    assert disturbed.verdict == NOT_MEASURED
    assert "disturbed: threads waited" in report(disturbed).text()


@pytest.mark.parametrize(
    ("ms", "barrier", "valid"), [(10.0, 0.02, True), (8.0, 0.02, True), (7.9, 0.02, False), (10.0, 8.0, False)]
)
def test_times_of_waiting_threads_are_disturbed(ms, barrier, valid):
    def timing(value):
        return Timing(value, value, 1)

    forms = {"dense": timing(10.0), "factors": timing(5.0)}
    pair = update.Pair((1, 1), (2, 2), "dense", timing(ms), timing(4.0), forms, 1.0, {}, timing(barrier), None)
    assert pair.floor_ms == 10.0
    assert pair.quicker_form_ms == 5.0
    assert pair.quickest_ratio == ms / 10.0
    assert pair.valid is valid
    assert replace(pair, captured=True).valid


def test_a_report_is_good_only_where_something_was_measured_and_nothing_missed():
    assert report(row(1.0, 1.5), row(None, 1.5)).reached
    assert not report(row(1.0, 1.5), row(2.0, 1.5)).reached
    assert not report(row(None, 1.5)).reached


def test_the_short_table_sums_up_the_details():
    hidden = row(1.25, 1.5, shown=False, ms=7.0), row(9.75, 1.5, shown=False, ms=0.25)
    table = report(row(0.5, 1.5), *hidden).text()
    assert "1.25x" not in table
    assert "9.75x" not in table
    assert "2 smaller grids, in the JSON: 1 not met, taking at most 0.25 ms each." in table
    assert "1 smaller grids, in the JSON: all met." in report(row(0.5, 1.5), hidden[0]).text()
    assert "smaller grids" not in report(row(0.5, 1.5), *hidden).text(every=True)
    assert "9.75x" in report(row(0.5, 1.5), *hidden).text(every=True)
    assert "2 met, 1 not met, 0 not measured" in table


def test_the_table_names_a_busy_machine():
    quiet = report(row(1.0, 1.5))
    busy = BenchReport({**quiet.machine, "load_before": 5.0}, quiet.settings, quiet.rates, quiet.rows, 1.0)
    assert "other processes" not in quiet.text()
    assert "other processes" in busy.text()


def test_a_full_run_reports_each_pair_its_sum_and_the_transforms(full):
    floors = [r for r in full.rows if r.quantity == "update / floor" and r.device is None]
    # tiny: three pairs and their sum at two batches; narrow: one pair and its sum.
    assert len(floors) == 2 * 4 + 2
    references = [r for r in full.rows if r.quantity == "reference / update"]
    assert len(references) == (3 + 1) + 1
    for each in floors + references:
        assert each.ratio > 0
        assert each.ms > 0
        assert each.against_ms > 0
        assert each.samples >= 1
    for each in references:
        assert each.at_least
        assert each.ratio == pytest.approx(each.against_ms / each.ms)
    for each in floors:
        assert each.ratio == pytest.approx(each.ms / each.against_ms)


def test_the_sum_is_that_of_the_pairs(full):
    rows = [r for r in full.rows if r.what.startswith("tiny batch 2") and r.quantity == "update / floor"]
    *pairs, total = rows
    assert total.what.endswith("sum")
    assert total.ms == pytest.approx(sum(r.ms for r in pairs))
    assert total.against_ms == pytest.approx(sum(r.against_ms for r in pairs))


def test_what_was_not_run_is_marked(full):
    missing = [r for r in full.rows if r.ratio is None]
    assert [(r.what.split(",")[0], r.device) for r in missing] == [
        ("VAR-d16 size", None),
        ("bfloat16", "cuda"),
        ("VAR-d16 size", "cuda"),
    ]
    assert all(r.verdict == NOT_MEASURED and r.note for r in missing)


def test_json_carries_every_row_with_its_verdict(full):
    content = json.loads(full.json())
    assert set(content) == {"format", "machine", "settings", "rates", "rows", "seconds"}
    assert content["format"] == 1
    assert content["settings"]["schedules"] == ["tiny", "narrow"]
    assert content["settings"]["dtype"] == "float32"
    assert {"threads", "processor", "versions", "load_before", "load_after"} <= set(content["machine"])
    assert content["rates"]["bandwidth"] > 0
    assert content["rates"]["gemm"] > 0
    assert [r["verdict"] for r in content["rows"]] == [r.verdict for r in full.rows]
    assert all(set(r) == ROW_KEYS for r in content["rows"])


def test_the_file_is_the_json(tmp_path):
    file = tmp_path / "bench.json"
    found = run(BenchConfig(["narrow"], quick=True, repeat=1, out=file), shapes=TINY)
    assert file.read_text() == found.json()
    assert [each.name for each in tmp_path.iterdir()] == ["bench.json"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(ConfigError, match="the report cannot be written to"):
        report(row(1.0, 1.5)).write(target)
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]


def test_growth_is_held_against_the_floors(monkeypatch):
    monkeypatch.setattr(growth, "BATCHES", (1, 2))
    monkeypatch.setattr(growth, "VOCABULARIES", (16, 32, 64))
    rows = growth.growth_rows(CPU, torch.float32, repeat=1, sides=(4, 8))
    assert [row.details["sizes"] for row in rows] == [[1, 2], [16, 32, 64], [16, 64]]
    assert all(row.quantity == "log-log slope" and row.target > row.details["predicted"] for row in rows)
    assert [row.details["predicted"] for row in rows[:2]] == [1.0, 1.0]


def test_quick_measures_the_largest_grids_at_the_smallest_batch_only():
    found = run(BenchConfig(["tiny"], quick=True, repeat=2), shapes=TINY)
    floors = [r.what for r in found.rows if r.quantity == "update / floor" and r.ratio is not None]
    assert floors == ["tiny batch 1, 2x2 -> 3x3", "tiny batch 1, 3x3 -> 5x5"]


@pytest.mark.parametrize(("source", "target", "batch"), [((3, 3), (5, 5), 2), ((2, 3), (4, 7), 1)])
def test_products_count_the_operations_of_the_matrices(source, target, batch):
    forms = products(source, target, 6, batch, 3, device=CPU, dtype=torch.float32)
    terms = DSE().factors(source, target)
    dense = torch.zeros(target[0] * target[1], source[0] * source[1])
    # Two operations per entry of a matrix, per column that it meets.
    assert sum(p.whole for p in forms["dense"]) == 2 * dense.numel() * 6 * batch
    across = 2 * sum(x.numel() for _, x in terms) * source[0] * 6 * batch
    down = 2 * sum(y.numel() for y, _ in terms) * target[1] * 6 * batch
    assert [p.whole for p in forms["factors"]] == [across, down]


def test_a_product_measured_on_a_part_counts_as_the_whole():
    (dense,) = products((48, 48), (64, 64), 4096, 1, 3, device=CPU, dtype=torch.float32)["dense"]
    assert dense.whole == 2 * 64**2 * 48**2 * 4096
    assert dense.operations < dense.whole
    share = dense.whole / dense.operations
    assert dense.whole_of(Timing(2.0, 1.0, 3)) == Timing(2.0 * share, 1.0 * share, 3)


def test_the_median_of_a_job_is_its_duration():
    pause = 0.004
    found = measure({"pause": lambda: time.sleep(pause), "none": lambda: None}, CPU, repeat=5)
    assert found["pause"].samples == found["none"].samples == 5
    assert found["pause"].quickest_ms >= 0.99 * pause * 1e3
    assert found["pause"].ms >= found["pause"].quickest_ms > found["none"].quickest_ms


def test_a_long_job_has_fewer_samples():
    found = measure({"pause": lambda: time.sleep(0.01)}, CPU, repeat=50, budget_s=0.05)
    assert found["pause"].samples == 5


def test_spans_add_up():
    spans = Spans(CPU)
    for _ in range(2):
        spans.start()
        time.sleep(0.002)
        spans.stop()
    assert spans.total_ms() >= 3.9


def test_a_wrong_update_is_not_timed(monkeypatch):
    monkeypatch.setattr(update, "extrapolate", lambda logits, previous, matrix, beta, out: out.copy_(logits))
    with pytest.raises(NumericalError, match="differs from the transform-per-call form"):
        run(BenchConfig(["narrow"], repeat=1), shapes=TINY)


def test_timed_guidance_changes_nothing():
    generator = hguide.load("toy")
    spans = Spans(CPU)
    timed = hguide.generate(generator, 1, TimedGuidance(parse(GUIDANCE), spans), seeds=[0, 1])
    assert torch.equal(timed, hguide.generate(generator, 1, GUIDANCE, seeds=[0, 1]))
    assert spans.total_ms() > 0


def test_a_run_without_guidance_asks_for_the_same_streams():
    records = {}
    for guidance in (parse(GUIDANCE), Unguided(parse(GUIDANCE))):
        records[guidance] = []
        hguide.generate(hguide.load("toy"), 1, guidance, seeds=[0], on_step=records[guidance].append)
    guided, unguided = records.values()
    assert [set(record.predictions) for record in unguided] == [set(record.predictions) for record in guided]
    assert all(torch.equal(record.logits, record.predictions[COND]) for record in unguided)
    assert not all(torch.equal(record.logits, record.predictions[COND]) for record in guided)


def test_the_share_of_guidance_is_a_part_of_the_run():
    share = guidance_share(hguide.load("toy"), runs=2, batch=2)
    assert 0 < share.ratio < 1
    assert 0 < share.guidance_ms < share.total_ms
    assert share.runs == 2


def test_threads_are_put_back():
    before = torch.get_num_threads()

    def interrupted():
        with threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert torch.get_num_threads() == before


def test_published_shapes():
    assert {name: (len(s.pairs), sum(n * n for n in s.sides)) for name, s in SHAPES.items()} == {
        "var-256": (9, 680),
        "var-512": (9, 2240),
        "hart-1024": (13, 9451),
        "infinity-1m": (12, 10521),
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: run(BenchConfig(["tyny"]), shapes=TINY), "unknown schedule 'tyny': did you mean 'tiny'"),
        (lambda: run(BenchConfig(device="abacus"), shapes=TINY), "the device 'abacus' cannot be used here"),
        (lambda: run(BenchConfig(threads=0), shapes=TINY), "threads is at least 1, got 0"),
        (lambda: BenchConfig(repeat=0), "repeat is at least 1"),
        (lambda: BenchConfig(out=Path("no/such/folder/bench.json")), "out is a file in a folder that exists"),
        (lambda: BenchConfig(end_to_end=-1), "end_to_end at least 0"),
        (lambda: Shapes("one", (4,), 8, (1,)), "two or more sides"),
        (lambda: Shapes("none", (1, 2), 0, (1,)), "positive sizes"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()

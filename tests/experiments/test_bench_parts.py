"""The benchmarks of sampler and backbone: arithmetic, and runs at tiny shapes. No test depends on how fast it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hguide.errors import ConfigError
from hguide.experiments.bench.backbone import BackboneBenchConfig, run, work_of
from hguide.experiments.bench.everything import PARTS, AllBenchConfig
from hguide.experiments.bench.everything import run as run_all
from hguide.experiments.bench.floors import Rates
from hguide.experiments.bench.memory import MemoryBenchConfig
from hguide.experiments.bench.memory import run as run_memory
from hguide.experiments.bench.report import BenchReport, BenchRow
from hguide.experiments.bench.sampler import SamplerBenchConfig
from hguide.experiments.bench.sampler import run as run_sampler
from hguide.experiments.bench.side_by_side import side_by_side
from hguide.experiments.bench.slopes import slope, slope_row
from hguide.experiments.parity.var_model import VARModel

GOLDEN = Path(__file__).parents[1] / "golden" / "var"
CPU = torch.device("cpu")
MACHINE = {
    "name": "m", "type": "cpu", "processor": "p", "threads": 1, "cores": 8, "instructions": "i", "load_before": 0.5,
    "versions": {"torch": "2"},
}  # fmt: skip


def tiny(device, dtype):
    folder = GOLDEN / "adaln"
    return VARModel(folder, json.loads((folder / "config.json").read_text())).generator


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_slope_of_a_power_is_its_exponent(power):
    sizes = [1.0, 3.0, 10.0, 20.0]
    assert slope(sizes, [7.0 * size**power for size in sizes]) == pytest.approx(power, abs=1e-12)


def test_a_slope_row_is_judged_by_the_predicted_growth():
    linear, square = slope_row("a", [1, 2, 4], [1, 2, 4], samples=3), slope_row("b", [1, 2, 4], [1, 4, 16], samples=3)
    assert (linear.verdict, square.verdict) == ("met", "not met")
    assert slope_row("c", [1, 2, 4], [1, 4, 16], predicted=2.0, samples=3).verdict == "met"
    assert "predicted 1.00; at 1, 2, 4" in linear.note


@pytest.mark.parametrize(("sizes", "costs"), [([1, 1], [1, 2]), ([1, 2], [1]), ([1, 2], [0, 1])])
def test_a_slope_needs_two_sizes_and_costs(sizes, costs):
    with pytest.raises(ConfigError, match="a slope needs two sizes and positive costs"):
        slope(sizes, costs)


def test_the_work_of_a_step_counts_its_weights():
    """A step with one row and one token reads each weight once and uses each for two operations."""
    model = tiny(CPU, torch.float32).transformer
    config = model.config
    blocks = [p.numel() for n, p in model.blocks.named_parameters() if "ada" not in n and p.ndim == 2]
    weights = sum(blocks) + model.head.weight.numel()
    work = work_of(config, 0, 1, 4)
    one = 4 * config.depth * config.width  # attention of the only token to itself
    assert work.operations == 2 * weights + one
    assert work.bytes == 4 * (weights + 2 * config.depth * config.width + config.vocabulary)
    last = work_of(config, len(config.lengths) - 1, 2, 4)
    assert last.bytes > work.bytes
    assert last.operations > 2 * config.lengths[-1] * work.operations


def test_the_floor_is_the_larger_time():
    work = work_of(tiny(CPU, torch.float32).transformer.config, 1, 2, 4)
    assert work.floor_ms(Rates(work.bytes, work.operations * 4)) == 1000.0
    assert work.floor_ms(Rates(work.bytes * 4, work.operations)) == 1000.0


def test_the_backbone_benchmark_has_a_row_per_scale_and_the_growth(tmp_path):
    out = tmp_path / "backbone.json"
    report = run(BackboneBenchConfig(depths=(1, 2), batches=(1, 2), repeat=1, out=out), model=tiny)
    steps = [row for row in report.rows if row.quantity == "step / floor"]
    assert len(steps) == len(tiny(CPU, torch.float32).scales) + 1
    assert steps[-1].ms == pytest.approx(sum(row.ms for row in steps[:-1]))
    assert all(row.ratio == pytest.approx(row.ms / row.against_ms) for row in steps)
    assert [row.quantity for row in report.rows[len(steps) :]] == ["log-log slope"] * 3
    assert len(json.loads(out.read_text())["rows"]) == len(report.rows)


def test_the_sampler_benchmark_holds_every_filter_against_both(tmp_path):
    out = tmp_path / "sampler.json"
    config = SamplerBenchConfig(batches=(1, 2), sides=(1, 2), vocabularies=(1000, 1200), repeat=1, out=out)
    rows = run_sampler(config).rows
    assert [row.quantity for row in rows[:8]] == ["straightforward / hguide", "draw / one read"] * 4
    assert [row.quantity for row in rows[8:]] == ["log-log slope"] * 3
    assert all(row.ms > 0 for row in rows)
    assert len(json.loads(out.read_text())["rows"]) == 11


def test_everything_is_one_table_and_one_file(tmp_path):
    def part(config, progress):
        row = BenchRow("a thing", "update / floor", 1.0, 1.5)
        return BenchReport(MACHINE, {"dtype": "float32", "threads": config.threads}, {}, (row,), 1.0)

    out = tmp_path / "all.json"
    seen = []
    found = run_all(AllBenchConfig(threads=1, out=out), parts={"one": part, "two": part}, progress=seen.append)
    assert [row.what for row in found.rows] == ["one: a thing", "two: a thing"]
    assert seen == ["== one", "== two"]
    assert set(json.loads(out.read_text())["settings"]["parts"]) == {"one", "two"}
    assert list(PARTS) == ["guidance", "sampler", "backbone", "end to end", "memory"]


def test_every_row_says_where_it_was_measured():
    here = BenchRow("a", "update / floor", 1.0, 1.5)
    elsewhere = BenchRow("b", "update / floor", None, 1.5, device="cuda", note="run it there")
    *_, first, second, _, _ = BenchReport(MACHINE, {}, {}, (here, elsewhere), 1.0).text().splitlines()
    assert " CPU " in first
    assert first.endswith("met")
    assert " GPU " in second
    assert second.endswith("not measured (run it there)")


def test_a_prediction_is_no_missing_measurement():
    (row,) = run_memory(MemoryBenchConfig(model="landuse-var", batches=(2,), predict=True)).rows
    assert row.verdict == "predicted"
    assert row.ms > 0


def test_turns_alternate():
    order = []
    row = side_by_side("x", lambda: order.append("a"), lambda: order.append("b"), CPU, repeat=2, target=1.0)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert row.samples == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BackboneBenchConfig(dtype="float8"), "dtype is float32"),
        (lambda: BackboneBenchConfig(depths=(1,)), "two or more depths and batches"),
        (lambda: BackboneBenchConfig(repeat=0), "repeat is at least 1"),
        (lambda: AllBenchConfig(runs=0), "runs is at least 1"),
        (lambda: AllBenchConfig(out=Path("no/such/folder/all.json")), "out is a file in a folder that exists"),
        (lambda: SamplerBenchConfig(batches=(1,)), "two or more batches"),
        (lambda: SamplerBenchConfig(vocabularies=(10, 20)), "vocabularies at least 1,000"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()

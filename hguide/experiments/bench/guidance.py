"""What guidance costs: SSG's update against its floor and against transforms, and its share of a sampling run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from hguide.errors import ConfigError
from hguide.experiments.bench.end_to_end import GUIDANCE, captured_guidance_share, guidance_share, var_d16
from hguide.experiments.bench.floors import peak_rates
from hguide.experiments.bench.growth import growth_rows
from hguide.experiments.bench.machine import checked_device, machine_facts, threads
from hguide.experiments.bench.report import BenchReport, BenchRow, finished
from hguide.experiments.bench.shapes import SHAPES, Shapes, chosen
from hguide.experiments.bench.update import Pair, pairs_of
from hguide.sampling import Sampler

__all__ = ["BenchConfig", "run"]

UPDATE_TARGET, REFERENCE_TARGET = 1.5, 20.0
SHARE_TARGET: Mapping[str, float] = {"cpu": 0.01, "cuda": 0.005}
WANTED_RUNS = 20

_BUDGET_S, _QUICK_BUDGET_S = 0.6, 0.3
_QUICK_REPEAT, _QUICK_PAIRS, _SHOWN_PAIRS = 7, 2, 3


@dataclass(frozen=True)
class BenchConfig:
    """What to measure.

    Args:
        schedules: names of shapes; all where empty.
        threads: CPU threads; None leaves them.
        repeat: samples of each time; fewer where one call takes long.
        quick: the two largest grids of each schedule at the smallest batch, few samples.
        end_to_end: runs of VAR-d16 to measure the share of guidance in; 0 measures none. One takes 10 s and more on
            a CPU.
        growth: also how the update grows with batch, vocabulary and grid; not where `quick`.
        out: JSON file for all numbers; None writes none.
        device: "cpu", "cuda" or any other; CUDA runs in bfloat16, the rest in float32.

    Raises:
        ConfigError: counts out of range.
    """

    schedules: Sequence[str] = ()
    threads: int | None = None
    repeat: int = 20
    quick: bool = False
    end_to_end: int = 0
    growth: bool = True
    out: Path | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.repeat < 1 or self.end_to_end < 0:
            raise ConfigError(
                f"repeat is at least 1 and end_to_end at least 0, got {self.repeat} and {self.end_to_end}."
            )
        if self.out is not None and (Path(self.out).is_dir() or not Path(self.out).parent.is_dir()):
            raise ConfigError(f"out is a file in a folder that exists, got {self.out}.")


def run(
    config: BenchConfig | None = None,
    *,
    shapes: Mapping[str, Shapes] = SHAPES,
    progress: Callable[[str], object] = lambda line: None,
) -> BenchReport:
    """Measure all of it in one go on one device.

    Args:
        config: what to measure.
        shapes: that names in `config.schedules` mean.
        progress: receives a line before each part.

    Returns:
        The report; what was not measured has a row that says so.

    Raises:
        ConfigError: an unknown schedule, a device that is not there, or a file that cannot be written.
        NumericalError: the update differs from the transform-per-call form.
    """
    config = config or BenchConfig()
    wanted, device = chosen(config.schedules, shapes), checked_device(config.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    began = perf_counter()
    with threads(config.threads):
        machine = machine_facts(device)
        progress("rates on large operands")
        rates = peak_rates(device, dtype, repeat=config.repeat)
        rows = []
        for model in wanted:
            for batch in model.batches[: 1 if config.quick else None]:
                rows += _schedule(config, model, batch, device, dtype, progress)
        if config.growth and not config.quick:
            rows += growth_rows(device, dtype, repeat=config.repeat, progress=progress)
        rows += _shares(config, device, dtype, progress)
        rows += _elsewhere(device)
    schedules = [model.name for model in wanted]
    return finished(config, machine, rows, began, rates=rates, schedules=schedules, dtype=str(dtype).split(".")[-1])


def _schedule(
    config: BenchConfig,
    model: Shapes,
    batch: int,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[str], object],
) -> list[BenchRow]:
    """The rows of one schedule at one batch size: floors pair by pair, their sum, then the transforms."""
    name = f"{model.name} batch {batch}"
    repeat, budget_s, largest = config.repeat, _BUDGET_S, 0
    if config.quick:
        repeat, budget_s, largest = min(config.repeat, _QUICK_REPEAT), _QUICK_BUDGET_S, _QUICK_PAIRS
    pairs = []
    for pair in pairs_of(model, batch, device, dtype, repeat=repeat, budget_s=budget_s, largest=largest):
        progress(f"{name}, {pair.grids}")
        pairs.append(pair)
    rows = [_floor_row(name, pair, place >= len(pairs) - _SHOWN_PAIRS) for place, pair in enumerate(pairs)]
    if not largest:
        rows.append(_sum_row(name, pairs))
    return rows + [_reference_row(name, pair) for pair in pairs if pair.reference is not None]


def _floor_row(name: str, pair: Pair, shown: bool) -> BenchRow:
    bound = "bytes" if pair.traffic.ms >= pair.products[pair.form].ms else "operations"
    return BenchRow(
        what=f"{name}, {pair.grids}",
        quantity="update / floor",
        ratio=pair.update.ms / pair.floor_ms,
        target=UPDATE_TARGET,
        ms=pair.update.ms,
        against_ms=pair.floor_ms,
        samples=pair.update.samples,
        note=f"{pair.form}; floor: {bound}",
        shown=shown,
        quickest_ratio=pair.quickest_ratio,
        valid=pair.valid,
        details={
            "form": pair.form,
            "quickest_ms": pair.update.quickest_ms,
            "barrier_ms": pair.barrier.ms,
            "bytes_ms": pair.traffic.ms,
            "operations_ms": {form: timing.ms for form, timing in pair.products.items()},
            "ratio_to_quicker_form": pair.update.ms / pair.quicker_form_ms,
            "gigabytes": pair.gigabytes,
            "gigaoperations": pair.gigaoperations,
        },
    )


def _sum_row(name: str, pairs: Sequence[Pair]) -> BenchRow:
    update, floor = (sum(times) for times in zip(*((pair.update.ms, pair.floor_ms) for pair in pairs), strict=True))
    samples = min(pair.update.samples for pair in pairs)
    return BenchRow(
        what=f"{name}, sum",
        quantity="update / floor",
        ratio=update / floor,
        target=UPDATE_TARGET,
        ms=update,
        against_ms=floor,
        samples=samples,
        note=f"all {len(pairs)} pairs of grids",
        valid=all(pair.valid for pair in pairs),
    )


def _reference_row(name: str, pair: Pair) -> BenchRow:
    assert pair.reference is not None
    return BenchRow(
        what=f"{name}, {pair.grids}",
        quantity="reference / update",
        ratio=pair.reference.ms / pair.update.ms,
        target=REFERENCE_TARGET,
        at_least=True,
        ms=pair.update.ms,
        against_ms=pair.reference.ms,
        samples=pair.reference.samples,
        note="torch-dct, transforms of every map",
        valid=pair.valid,
    )


def _shares(
    config: BenchConfig, device: torch.device, dtype: torch.dtype, progress: Callable[[str], object]
) -> list[BenchRow]:
    what, quantity = f"VAR-d16 size, 256 px, 1 image, {GUIDANCE}", "guidance / total"
    target, runs = SHARE_TARGET.get(device.type, SHARE_TARGET["cpu"]), config.end_to_end
    if not runs:
        return [BenchRow(what, quantity, None, target, note="measured with --end-to-end")]
    progress(f"{what}, {runs} runs")
    model, sampler = var_d16(device, dtype), Sampler(top_k=900, top_p=0.96)
    shares = {what: guidance_share(model, runs=runs, sampler=sampler)}
    if device.type == "cuda":
        shares[f"{what}, graphs"] = captured_guidance_share(model, runs=runs, sampler=sampler)
    note = "random weights" + (f"; {runs} runs of {WANTED_RUNS} wanted" if runs < WANTED_RUNS else "")
    return [
        BenchRow(name, quantity, share.ratio, target, False, share.guidance_ms, share.total_ms, share.runs, note)
        for name, share in shares.items()
    ]


def _elsewhere(device: torch.device) -> list[BenchRow]:
    """What this run cannot say, since it ran on the CPU."""
    if device.type == "cuda":
        return []
    note = "run it with --device cuda"
    return [
        BenchRow("bfloat16, all schedules", "update / floor", None, UPDATE_TARGET, note=note, device="cuda"),
        BenchRow("VAR-d16 size", "guidance / total", None, SHARE_TARGET["cuda"], note=note, device="cuda"),
    ]

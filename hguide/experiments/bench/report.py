"""What the benchmark found: one row per figure, with its target and its verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from hguide.errors import ConfigError
from hguide.experiments.bench.floors import Rates
from hguide.experiments.bench.machine import load_average

__all__ = ["MET", "NOT_MEASURED", "NOT_MET", "NO_TARGET", "PREDICTED", "BenchReport", "BenchRow", "finished"]

MET, NOT_MET, NOT_MEASURED, NO_TARGET, PREDICTED = "met", "not met", "not measured", "no target", "predicted"
_HEADER = ("what", "on", "ms or MiB", "against", "ratio", "quickest", "target", "n", "verdict")
_FORMAT = 1
_DEVICES = {"cpu": "CPU", "cuda": "GPU"}


@dataclass(frozen=True)
class BenchRow:
    """One figure.

    Attributes:
        what: in words.
        quantity: what the ratio is of: "update / floor", "guidance / total", "log-log slope" and others.
        ratio: the figure; None where it was not measured.
        target: that it is held against; None for a figure that is only told.
        at_least: whether the target is a lower bound; else it is an upper one.
        ms: time of what is judged.
        against_ms: of what it is compared with: the floor, the transform-per-call form, the whole run.
        samples: behind the median.
        note: why it was not measured, or what to know about it.
        shown: whether the short table has it.
        quickest_ratio: the same by the quickest sample of each, where known: what a busy machine disturbs least.
        valid: False where other processes were measured rather than this one.
        details: further numbers, for the JSON.
        device: type of the device where it is not that of the report.
        predicted: whether it foretells, with nothing to be measured.
    """

    what: str
    quantity: str
    ratio: float | None
    target: float | None
    at_least: bool = False
    ms: float | None = None
    against_ms: float | None = None
    samples: int = 0
    note: str = ""
    shown: bool = True
    quickest_ratio: float | None = None
    valid: bool = True
    details: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None
    predicted: bool = False

    @property
    def verdict(self) -> str:
        """ "met", "not met", "not measured", "no target" or "predicted"."""
        if self.predicted:
            return PREDICTED
        if not self.valid or self.ratio is None or not math.isfinite(self.ratio):
            return NOT_MEASURED
        if self.target is None:
            return NO_TARGET
        return MET if (self.ratio >= self.target if self.at_least else self.ratio <= self.target) else NOT_MET


@dataclass(frozen=True)
class BenchReport:
    """All figures of one run on one machine.

    Attributes:
        machine: facts of the machine.
        settings: of the run.
        rates: bandwidth and GEMM rate on large operands.
        rows: the figures.
        seconds: the whole benchmark took.
    """

    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    rates: Mapping[str, float]
    rows: tuple[BenchRow, ...]
    seconds: float

    def of(self, verdict: str) -> tuple[BenchRow, ...]:
        """The rows with a verdict."""
        return tuple(row for row in self.rows if row.verdict == verdict)

    @property
    def reached(self) -> bool:
        """True where something was measured and no target was missed."""
        return bool(self.of(MET)) and not self.of(NOT_MET)

    def text(self, *, every: bool = False) -> str:
        """Machine, table and summary.

        Args:
            every: all rows; else the smaller grids share one line.
        """
        rows = [row for row in self.rows if every or row.shown]
        lines = [*self._facts(), "", *_table([_HEADER, *(_cells(row, self.machine["type"]) for row in rows)])]
        left = [row for row in self.rows if row not in rows]
        if left:
            missed = [row for row in left if row.verdict == NOT_MET]
            longest = max((row.ms or 0.0 for row in missed), default=0.0)
            which = f"{len(missed)} not met, taking at most {longest:.2f} ms each" if missed else "all met"
            lines.append(f"{len(left)} smaller grids, in the JSON: {which}.")
        return "\n".join([*lines, "", f"targets: {self._counts()}; {self.seconds:.0f} s."])

    def _counts(self) -> str:
        return ", ".join(f"{len(self.of(verdict))} {verdict}" for verdict in (MET, NOT_MET, NOT_MEASURED))

    def json(self) -> str:
        """All of it, rows with their verdicts."""
        content = asdict(self) | {"format": _FORMAT}
        content["rows"] = [asdict(row) | {"verdict": row.verdict} for row in self.rows]
        return json.dumps(content, indent=1) + "\n"

    def write(self, path: str | Path) -> None:
        """The JSON into a file, whole or not at all.

        Raises:
            ConfigError: it cannot be written.
        """
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.unfinished")
        try:
            unfinished.write_text(self.json())
            unfinished.replace(path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise ConfigError(f"the report cannot be written to {path}: {error.strerror}.") from None

    def _facts(self) -> list[str]:
        facts = self.machine
        load, cores = facts.get("load_before"), facts.get("cores") or 1
        busy = load is not None and load > cores / 2
        words = "unknown" if load is None else f"{load}"
        if busy:
            words += " (other processes compete for the cores: read the quickest samples, and measure again)"
        lines = [
            f"{facts['name']} ({facts['type']}), {facts['processor']}, {facts['threads']} threads of "
            f"{facts['cores']} cores, {facts['instructions']}, torch {facts['versions']['torch']}, "
            f"load {words}",
        ]
        if self.rates:
            lines.append(self._measured_rates())
        return lines

    def _measured_rates(self) -> str:
        return (
            f"read-read-write {self.rates['bandwidth'] / 1e9:.1f} GB/s, product {self.rates['gemm'] / 1e9:.0f} GFLOP/s "
            f"on large operands, {self.settings['dtype']}"
        )


def finished(
    config: Any,
    machine: Mapping[str, Any],
    rows: Sequence[BenchRow],
    began: float,
    *,
    rates: Rates | None = None,
    **settings: object,
) -> BenchReport:
    """The report of a benchmark that ends now, written where its configuration says.

    Args:
        config: dataclass of the options, among them `out`.
        machine: facts of the machine before.
        rows: the figures.
        began: when it began, by `perf_counter`.
        rates: on large operands, where they were measured.
        **settings: what the options came to, where they leave it open.

    Raises:
        ConfigError: the file cannot be written.
    """
    told = asdict(config) | {"out": None if config.out is None else str(config.out)} | settings
    facts = {**machine, "load_after": load_average()}
    report = BenchReport(facts, told, {} if rates is None else asdict(rates), tuple(rows), perf_counter() - began)
    if config.out is not None:
        report.write(config.out)
    return report


def _cells(row: BenchRow, device: str) -> tuple[str, ...]:
    percent = row.quantity == "guidance / total"
    unit = "" if "slope" in row.quantity else "x"

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.{3 if value < 10 else 1}f}"

    def figure(value: float) -> str:
        return f"{100 * value:.2g} %" if percent else f"{value:.{2 if value < 10 else 0}f}{unit}"

    target = "-"
    if row.target is not None:
        bound = f"{100 * row.target:g} %" if percent else f"{row.target:g}{unit}"
        target = ("at least " if row.at_least else "at most ") + bound
    ratio, quickest = ("-" if value is None else figure(value) for value in (row.ratio, row.quickest_ratio))
    note = row.note if row.valid else "disturbed: threads waited for a core; use a quiet machine or fewer threads"
    verdict = row.verdict + (f" ({note})" if note else "")
    what = f"{row.what}: {row.quantity}"
    device = row.device or device
    return (
        what,
        _DEVICES.get(device, device),
        number(row.ms),
        number(row.against_ms),
        ratio,
        quickest,
        target,
        str(row.samples or "-"),
        verdict,
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER) - 1)]
    lines = []
    for row in rows:
        right = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *right, row[-1]]))
    return lines

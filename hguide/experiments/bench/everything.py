"""All benchmarks in one go: one table, one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from types import MappingProxyType

from hguide.errors import ConfigError
from hguide.experiments.bench import backbone, guidance, memory, sampler, sampling
from hguide.experiments.bench.machine import checked_device
from hguide.experiments.bench.report import BenchReport

__all__ = ["PARTS", "AllBenchConfig", "run"]


@dataclass(frozen=True)
class AllBenchConfig:
    """What all parts share; each part alone has more options.

    Args:
        quick: fewer grids and samples in the part on guidance.
        runs: whole images of VAR-d16's size, with guidance timed inside and beside the straightforward loop; one
            takes 10 s and more on a CPU.
        threads: CPU threads; None leaves them.
        device: "cpu", "cuda" or any other; networks run in bfloat16 on CUDA, in float32 elsewhere.
        model: of the part on memory.
        out: JSON file for all numbers; None writes none.

    Raises:
        ConfigError: fewer than one run, or a file that cannot be written.
    """

    quick: bool = False
    runs: int = 3
    threads: int | None = None
    device: str = "cpu"
    model: str = "landuse-var"
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise ConfigError(f"runs is at least 1, got {self.runs}.")
        if self.out is not None and (Path(self.out).is_dir() or not Path(self.out).parent.is_dir()):
            raise ConfigError(f"out is a file in a folder that exists, got {self.out}.")


Progress = Callable[[str], object]


def _guidance(config: AllBenchConfig, progress: Progress) -> BenchReport:
    chosen = guidance.BenchConfig(
        quick=config.quick, end_to_end=config.runs, threads=config.threads, device=config.device
    )
    return guidance.run(chosen, progress=progress)


def _sampler(config: AllBenchConfig, progress: Progress) -> BenchReport:
    return sampler.run(sampler.SamplerBenchConfig(threads=config.threads, device=config.device), progress=progress)


def _backbone(config: AllBenchConfig, progress: Progress) -> BenchReport:
    return backbone.run(backbone.BackboneBenchConfig(threads=config.threads, device=config.device), progress=progress)


def _sampling(config: AllBenchConfig, progress: Progress) -> BenchReport:
    on_cuda = checked_device(config.device).type == "cuda"
    chosen = sampling.SamplingBenchConfig(
        batches=(1, 64) if on_cuda else (1,),
        repeat=config.runs,
        threads=config.threads,
        dtype="bfloat16" if on_cuda else "float32",
        device=config.device,
    )
    return sampling.run(chosen, progress=progress)


def _memory(config: AllBenchConfig, progress: Progress) -> BenchReport:
    return memory.run(
        memory.MemoryBenchConfig(model=config.model, batches=(1, 8), device=config.device), progress=progress
    )


PARTS: Mapping[str, Callable[[AllBenchConfig, Progress], BenchReport]] = MappingProxyType(
    {
        "guidance": _guidance,
        "sampler": _sampler,
        "backbone": _backbone,
        "end to end": _sampling,
        "memory": _memory,
    }
)
"""The parts in their order."""


def run(
    config: AllBenchConfig | None = None,
    *,
    parts: Mapping[str, Callable[[AllBenchConfig, Progress], BenchReport]] = PARTS,
    progress: Progress = lambda line: None,
) -> BenchReport:
    """Every part one after the other, on one device.

    Args:
        config: what they share.
        parts: to run.
        progress: receives a line before each part.

    Raises:
        ConfigError: a device that is not there, or a file that cannot be written.
    """
    config = config or AllBenchConfig()
    began, reports = perf_counter(), {}
    for name, part in parts.items():
        progress(f"== {name}")
        reports[name] = part(config, progress)
    first = next(iter(reports.values()))
    rows = tuple(replace(row, what=f"{name}: {row.what}") for name, report in reports.items() for row in report.rows)
    settings = asdict(config) | {
        "out": None if config.out is None else str(config.out),
        "dtype": first.settings.get("dtype", "float32"),
        "parts": {name: report.settings for name, report in reports.items()},
        "rates": {name: report.rates for name, report in reports.items()},
    }
    together = BenchReport(first.machine, settings, first.rates, rows, perf_counter() - began)
    if config.out is not None:
        together.write(config.out)
    return together

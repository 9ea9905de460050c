"""Whole images of the other families at their published sizes: how long a run takes, and how long as a CUDA graph."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from hguide.errors import ConfigError, near_matches
from hguide.experiments.bench.machine import checked_device, machine_facts, threads
from hguide.experiments.bench.published_sizes import SIZES, Sized
from hguide.experiments.bench.report import BenchReport, BenchRow, finished
from hguide.experiments.bench.timing import timed
from hguide.generate import generate

__all__ = ["FamiliesBenchConfig", "run"]

_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class FamiliesBenchConfig:
    """What to measure.

    Args:
        families: "hart", "infinity", "switti", "vq-diffusion"; all where empty. The largest takes 10 GB while made.
        batches: images per run.
        dtype: of the network: "float32", "bfloat16" or "float16".
        repeat: timed runs of each form; they take turns.
        threads: CPU threads; None leaves them.
        device: "cpu", "cuda" or any other; graphs are measured on CUDA alone, and a run takes minutes on a CPU.
        out: JSON file for all numbers; None writes none.

    Raises:
        ConfigError: counts out of range, or an unknown name.
    """

    families: Sequence[str] = ()
    batches: Sequence[int] = (1,)
    dtype: str = "bfloat16"
    repeat: int = 5
    threads: int | None = None
    device: str = "cpu"
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.repeat < 1 or not self.batches or min(self.batches) < 1:
            raise ConfigError(f"batches and repeat are at least 1, got {list(self.batches)} and {self.repeat}.")
        if self.dtype not in _DTYPES:
            raise ConfigError(f"dtype is {', '.join(_DTYPES)}, got {self.dtype!r}.")
        for name in self.families:
            if name not in SIZES:
                raise ConfigError(f"no published size of {name!r}: {near_matches(name, SIZES)}")


def run(
    config: FamiliesBenchConfig | None = None,
    *,
    sizes: Mapping[str, Callable[[torch.dtype], Sized]] = SIZES,
    progress: Callable[[str], object] = lambda line: None,
) -> BenchReport:
    """Each family in turn: a run plainly and, on CUDA, as a graph.

    Args:
        config: what to measure.
        sizes: makes the models.
        progress: receives a line before each part.

    Returns:
        The report.

    Raises:
        ConfigError: a device that is not there, or a file that cannot be written.
    """
    config = config or FamiliesBenchConfig()
    device, began = checked_device(config.device), perf_counter()
    rows: list[BenchRow] = []
    with threads(config.threads):
        machine = machine_facts(device)
        for family in config.families or sizes:
            progress(f"{family}: random weights of its published size")
            with device:
                sized = sizes[family](getattr(torch, config.dtype))
            for batch in config.batches:
                progress(f"{sized.model.name}, batch {batch}")
                rows += _rows(sized, batch, device, config)
    return finished(config, machine, rows, began)


def _rows(sized: Sized, batch: int, device: torch.device, config: FamiliesBenchConfig) -> Iterator[BenchRow]:
    forms: dict[str, Any] = {"eager": sized.model}
    if device.type == "cuda":
        forms["graphs"] = sized.model.with_options(graphs=True)

    def job(model: Any) -> Callable[[], object]:
        return lambda: generate(model, sized.condition, sized.guidance, sized.sampler, seeds=range(batch))

    first = {name: timed(job(model), device)[0] for name, model in forms.items()}
    turns = [{name: timed(job(model), device)[0] for name, model in forms.items()} for _ in range(config.repeat)]
    eager = statistics.median(turn["eager"] for turn in turns)
    what = f"{sized.model.name}, {config.dtype}, {batch} image{'s' * (batch > 1)}, {sized.guidance}"
    if "graphs" not in forms:
        note = f"a run takes {eager:.0f} ms; graphs need a CUDA device"
        yield BenchRow(what, "eager / graphs", None, None, ms=eager, samples=config.repeat, note=note)
        return
    yield BenchRow(
        what,
        "eager / graphs",
        ratio=statistics.median(turn["eager"] / turn["graphs"] for turn in turns),
        target=1.0,
        at_least=True,
        ms=statistics.median(turn["graphs"] for turn in turns),
        against_ms=eager,
        samples=config.repeat,
        note=f"first call {first['graphs'] / 1e3:.1f} s",
        details={"first_call_ms": first, "milliseconds": turns},
    )

"""The peak memory of a run: predicted before it, and measured in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from hguide.errors import ConfigError
from hguide.experiments.bench.end_to_end import GUIDANCE
from hguide.experiments.bench.machine import checked_device, machine_facts
from hguide.experiments.bench.report import BenchRow, finished
from hguide.generate import generate
from hguide.generator import ScaleGenerator
from hguide.guidance import parse
from hguide.load import load
from hguide.memory import automatic_batch_size, free_bytes
from hguide.plan import plan

__all__ = ["MemoryBenchConfig", "peak_bytes", "run"]

_MIB = 1 << 20
_WITHIN = 1.3


@dataclass(frozen=True)
class MemoryBenchConfig:
    """What to predict and measure.

    Args:
        model: bundled name, file, folder or hub id.
        batches: images per run; 0 stands for the automatic batch size.
        guidance: in its text form.
        predict: predict alone, without a run.
        dtype: of the network: "float32", "bfloat16" or "float16".
        device: "cpu", "cuda" or any other.
        out: JSON file for all numbers; None writes none.

    Raises:
        ConfigError: batches out of range, or an unknown dtype.
    """

    model: str = "landuse-var"
    batches: Sequence[int] = (1, 8, 0)
    guidance: str = GUIDANCE
    predict: bool = False
    dtype: str = "float32"
    device: str = "cpu"
    out: Path | None = None

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 0:
            raise ConfigError(f"batches are at least 1, or 0 for the automatic size; got {list(self.batches)}.")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ConfigError(f"dtype is float32, bfloat16 or float16, got {self.dtype!r}.")


def run(config: MemoryBenchConfig | None = None, *, progress: Callable[[str], object] = lambda line: None) -> Any:
    """Predicted and measured peaks, batch by batch.

    Returns:
        The report.

    Raises:
        ConfigError: a model whose family does not tell its memory, or a device that is not there.
    """
    config = config or MemoryBenchConfig()
    device, began = checked_device(config.device), perf_counter()
    machine = machine_facts(device)
    generator = load(config.model, device=device, dtype=getattr(torch, config.dtype))
    live = plan(generator, parse(config.guidance))
    rows = []
    for batch in config.batches:
        samples = batch or automatic_batch_size(generator, live, wanted=1 << 30)
        progress(f"{generator.name}, {samples} images")
        rows.append(_row(generator, samples, len(live), config, automatic=not batch))
    return finished(config, machine | {"free_bytes": free_bytes(device)}, rows, began)


def peak_bytes(job: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors that a job holds at once, beside those that are there before it.

    On CUDA by the allocator's own count; on the CPU by PyTorch's profiler, which sees each allocation, so that the
    result is that of the tensors, the same in every run, and not of the process.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        job()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.autograd.profiler.profile(profile_memory=True) as seen:
        job()
    held = most = 0
    results: Any = seen.kineto_results
    changes = [event for event in results.events() if event.name() == "[memory]"]
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def _row(
    generator: ScaleGenerator, samples: int, streams: int, config: MemoryBenchConfig, *, automatic: bool
) -> BenchRow:
    predicted = generator.run_bytes(samples, streams)
    if predicted is None:
        raise ConfigError(f"{generator.name} does not tell its memory: measure it on the device that is to be used.")
    what = f"{generator.name}, {samples} image{'s' * (samples > 1)}{' (automatic)' * automatic}, {config.guidance}"
    details = {"predicted": asdict(predicted), "peak": predicted.peak}
    note = f"cache {predicted.cache / _MIB:.1f} MiB of it"
    if config.predict:
        return BenchRow(
            what, "predicted MiB", None, None, ms=predicted.peak / _MIB, note=note, details=details, predicted=True
        )
    conditions = 0 if generator.class_count else None
    measured = peak_bytes(
        lambda: generate(generator, conditions, config.guidance, seeds=range(samples)), generator.device
    )
    return BenchRow(
        what=what,
        quantity="predicted / measured MiB",
        ratio=max(predicted.peak / measured, measured / predicted.peak),
        target=_WITHIN,
        ms=predicted.peak / _MIB,
        against_ms=measured / _MIB,
        samples=1,
        note=note,
        details=details | {"measured": measured},
    )

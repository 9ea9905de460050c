"""How fast VAR sampling is beside the straightforward loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from hguide.backends.var.generator import VAR
from hguide.errors import ConfigError
from hguide.experiments.bench.end_to_end import var_d16
from hguide.experiments.bench.floors import peak_rates
from hguide.experiments.bench.machine import checked_device, machine_facts, threads
from hguide.experiments.bench.report import BenchReport, BenchRow, finished
from hguide.experiments.bench.side_by_side import side_by_side
from hguide.experiments.bench.straightforward_var import straightforward_sample
from hguide.generate import generate
from hguide.sampling import Sampler

__all__ = ["SamplingBenchConfig", "run"]

TARGETS: Mapping[tuple[str, bool], float] = {
    ("cpu", False): 1.05,
    ("cpu", True): 1.05,
    ("cuda", False): 3.0,
    ("cuda", True): 1.5,
}
"""(device, batch above 1) -> how many times faster than the straightforward loop."""

STRENGTH, TOP_K, TOP_P = 1.5, 900, 0.96


@dataclass(frozen=True)
class SamplingBenchConfig:
    """What to measure.

    Args:
        batches: images per run.
        repeat: runs of each loop; they take turns.
        threads: CPU threads; None leaves them.
        dtype: of the network: "float32", "bfloat16" or "float16".
        device: "cpu", "cuda" or any other.
        out: JSON file for all numbers; None writes none.

    Raises:
        ConfigError: counts out of range, or an unknown dtype.
    """

    batches: Sequence[int] = (1,)
    repeat: int = 5
    threads: int | None = None
    dtype: str = "float32"
    device: str = "cpu"
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.repeat < 1 or not self.batches or min(self.batches) < 1:
            raise ConfigError(f"batches and repeat are at least 1, got {list(self.batches)} and {self.repeat}.")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ConfigError(f"dtype is float32, bfloat16 or float16, got {self.dtype!r}.")


def run(
    config: SamplingBenchConfig | None = None,
    *,
    model: Callable[[torch.device, torch.dtype], VAR] = var_d16,
    progress: Callable[[str], object] = lambda line: None,
) -> BenchReport:
    """Both loops on the same weights, in turn.

    Args:
        config: what to measure.
        model: makes the VAR; by default one of VAR-d16's size with random weights.
        progress: receives a line before each part.

    Returns:
        The report.

    Raises:
        ConfigError: a device that is not there, or a file that cannot be written.
    """
    config = config or SamplingBenchConfig()
    device, dtype = checked_device(config.device), getattr(torch, config.dtype)
    began = perf_counter()
    with threads(config.threads):
        machine = machine_facts(device)
        rates = peak_rates(device, dtype, repeat=config.repeat)
        generator = model(device, dtype)
        rows = []
        for batch in config.batches:
            progress(f"{generator.name}, batch {batch}, {config.repeat} runs of each loop")
            rows.append(_loops(generator, batch, config.repeat))
    return finished(config, machine, rows, began, rates=rates)


def _loops(generator: VAR, batch: int, repeat: int) -> BenchRow:
    labels = torch.arange(batch, device=generator.device) % generator.transformer.config.classes
    top_k = min(TOP_K, generator.channels.width)
    sampler = Sampler(top_k=top_k, top_p=TOP_P)
    device = generator.device
    target = TARGETS.get((device.type, batch > 1), 1.0)

    def ours() -> object:
        return generate(generator, labels, f"cfg({STRENGTH})", sampler, seeds=range(batch))

    def straightforward() -> object:
        return straightforward_sample(generator, labels, strength=STRENGTH, top_k=top_k, top_p=TOP_P)

    what = f"{generator.name}, {batch} image{'s' * (batch > 1)}, cfg({STRENGTH})"
    return side_by_side(what, ours, straightforward, device, repeat=repeat, target=target)

"""What a draw costs: the sampler beside a full sort and softmax, and beside one read of the logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from hguide.errors import ConfigError
from hguide.experiments.bench.machine import checked_device, machine_facts, threads
from hguide.experiments.bench.report import BenchReport, BenchRow, finished
from hguide.experiments.bench.side_by_side import side_by_side
from hguide.experiments.bench.slopes import slope_row
from hguide.experiments.bench.straightforward_var import multinomial, sort_filter
from hguide.experiments.bench.timing import measure
from hguide.grids import Scale, Step
from hguide.noise import SeededNoise
from hguide.sampling import Sampler

__all__ = ["SamplerBenchConfig", "run"]

FILTERS = {
    "top-k 900, top-p 0.96": Sampler(top_k=900, top_p=0.96),
    "top-k 900": Sampler(top_k=900),
    "top-p 0.96": Sampler(top_p=0.96),
    "no filter": Sampler(),
}
"""VAR's own filters, each alone, and none."""

_STEP = Step(0, 2, 0, Scale(0, 1, 1))
_BUDGET_S = 2.0


@dataclass(frozen=True)
class SamplerBenchConfig:
    """What to measure; each of batch, grid and vocabulary grows while the others keep their first value.

    Args:
        batches: maps drawn at once.
        sides: side of a map.
        vocabularies: tokens per position, at least 1,000 each.
        repeat: turns of each comparison.
        threads: CPU threads; None leaves them.
        device: "cpu", "cuda" or any other; logits are float32 everywhere, as the heads hand them over.
        out: JSON file for all numbers; None writes none.

    Raises:
        ConfigError: counts out of range.
    """

    batches: Sequence[int] = (1, 2, 4, 8)
    sides: Sequence[int] = (16, 24, 32)
    vocabularies: Sequence[int] = (4096, 8192, 16384)
    repeat: int = 20
    threads: int | None = None
    device: str = "cpu"
    out: Path | None = None

    def __post_init__(self) -> None:
        if min(len(self.batches), len(self.sides), len(self.vocabularies)) < 2 or self.repeat < 1:
            raise ConfigError("growth needs two or more batches, sides and vocabularies, and repeat is at least 1.")
        if min(*self.batches, *self.sides) < 1 or min(self.vocabularies) < 1000:
            raise ConfigError("batches and sides are at least 1, vocabularies at least 1,000.")


def run(
    config: SamplerBenchConfig | None = None, *, progress: Callable[[str], object] = lambda line: None
) -> BenchReport:
    """Every filter beside the straightforward one and beside one read of the logits; then how the cost grows.

    Args:
        config: what to measure.
        progress: receives a line before each part.

    Raises:
        ConfigError: a device that is not there, or a file that cannot be written.
    """
    config = config or SamplerBenchConfig()
    device, began = checked_device(config.device), perf_counter()
    rows = []
    with threads(config.threads):
        machine = machine_facts(device)
        for words, sampler in FILTERS.items():
            progress(f"sampler, {words}")
            rows += _beside(config, words, sampler, device)
        for growing in ("batch", "grid", "vocabulary"):
            progress(f"sampler, growing {growing}")
            rows.append(_growth(config, growing, device))
    return finished(config, machine, rows, began, dtype="float32")


def _beside(config: SamplerBenchConfig, words: str, sampler: Sampler, device: torch.device) -> list[BenchRow]:
    batch, side, vocabulary = config.batches[0], config.sides[0], config.vocabularies[0]
    logits, noise = _logits(batch, side, vocabulary, device)
    top_k, top_p = int(sampler.at("top_k", _STEP)), float(sampler.at("top_p", _STEP))

    def ours() -> object:
        return sampler.categorical(logits, noise, _STEP)

    def straightforward() -> object:
        kept = sort_filter(logits.flatten(1, 2), top_k, top_p)
        return multinomial(0, kept.softmax(-1).flatten(0, 1))

    what = f"sampler, {batch} x {side}x{side} x {vocabulary}, {words}"
    found = measure({"ours": ours, "read": logits.sum}, device, repeat=config.repeat, budget_s=_BUDGET_S)
    floor = BenchRow(
        what=what,
        quantity="draw / one read",
        ratio=found["ours"].ms / found["read"].ms,
        target=None,
        ms=found["ours"].ms,
        against_ms=found["read"].ms,
        samples=found["ours"].samples,
        note="a read of the logits is what no filter can do without",
        quickest_ratio=found["ours"].quickest_ms / found["read"].quickest_ms,
    )
    return [side_by_side(what, ours, straightforward, device, repeat=config.repeat, target=1.0), floor]


def _growth(config: SamplerBenchConfig, growing: str, device: torch.device) -> BenchRow:
    sizes: list[float] = []
    jobs = {}
    first = {"batch": config.batches[0], "grid": config.sides[0], "vocabulary": config.vocabularies[0]}
    wanted = {"batch": config.batches, "grid": config.sides, "vocabulary": config.vocabularies}[growing]
    sampler = FILTERS["top-k 900, top-p 0.96"]
    for size in wanted:
        shape = first | {growing: size}
        logits, noise = _logits(shape["batch"], shape["grid"], shape["vocabulary"], device)
        sizes.append(size**2 if growing == "grid" else size)
        jobs[str(size)] = lambda logits=logits, noise=noise: sampler.categorical(logits, noise, _STEP)
    found = measure(jobs, device, repeat=config.repeat, budget_s=_BUDGET_S)
    times = [found[str(size)].ms for size in wanted]
    words = "positions" if growing == "grid" else growing
    return slope_row(f"sampler over {words}", sizes, times, samples=min(timing.samples for timing in found.values()))


def _logits(batch: int, side: int, vocabulary: int, device: torch.device) -> tuple[torch.Tensor, SeededNoise]:
    generator = torch.Generator(device).manual_seed(0)
    logits = torch.randn(batch, side, side, vocabulary, device=device, generator=generator) * 3
    return logits, SeededNoise(range(batch), device=device)

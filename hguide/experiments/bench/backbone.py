"""What a step of the transformer costs beside its floor: bytes over bandwidth, operations over rate."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import torch

from hguide.backends.var import VAR, TransformerConfig, VARTransformer
from hguide.errors import ConfigError
from hguide.experiments.bench.end_to_end import var_d16
from hguide.experiments.bench.floors import Rates, peak_rates, read_rate
from hguide.experiments.bench.machine import checked_device, machine_facts, threads
from hguide.experiments.bench.report import BenchReport, BenchRow, finished
from hguide.experiments.bench.slopes import slope, slope_row
from hguide.experiments.bench.timing import Spans
from hguide.generator import Draw
from hguide.noise import SeededNoise
from hguide.streams import COND, UNCOND

__all__ = ["BackboneBenchConfig", "Work", "run", "work_of"]

_STREAMS = (COND, UNCOND)
_WARM = {"cuda": 3}


@dataclass(frozen=True)
class BackboneBenchConfig:
    """What to measure.

    Args:
        batch: images per run, each with a conditional and a null stream.
        depths: blocks of smaller models of the same width, for the growth over depth.
        batches: for the growth over batch, with the smallest of those models.
        repeat: runs of each model; None takes 3 on a CPU, where a run of VAR-d16 takes seconds, and 20 elsewhere.
        threads: CPU threads; None leaves them.
        dtype: of the weights; None takes bfloat16 on CUDA, float32 elsewhere.
        device: "cpu", "cuda" or any other.
        out: JSON file for all numbers; None writes none.

    Raises:
        ConfigError: counts out of range, or an unknown dtype.
    """

    batch: int = 1
    depths: Sequence[int] = (1, 2, 4)
    batches: Sequence[int] = (1, 2, 4)
    repeat: int | None = None
    threads: int | None = None
    dtype: str | None = None
    device: str = "cpu"
    out: Path | None = None

    def __post_init__(self) -> None:
        if min(len(self.depths), len(self.batches)) < 2 or min(self.batch, *self.depths, *self.batches) < 1:
            raise ConfigError("growth needs two or more depths and batches, and all of them are at least 1.")
        if self.repeat is not None and self.repeat < 1:
            raise ConfigError(f"repeat is at least 1, got {self.repeat}.")
        if self.dtype not in (None, "float32", "bfloat16", "float16"):
            raise ConfigError(f"dtype is float32, bfloat16 or float16, got {self.dtype!r}.")


@dataclass(frozen=True)
class Work:
    """What a step cannot do without.

    Attributes:
        bytes: weights once, keys and values of all tokens so far, logits.
        operations: of the weights on the new tokens, and of attention over all tokens so far.
    """

    bytes: float
    operations: float

    def floor_ms(self, rates: Rates) -> float:
        """The larger of both times."""
        return 1e3 * max(self.bytes / rates.bandwidth, self.operations / rates.gemm)


def work_of(config: TransformerConfig, scale: int, rows: int, itemsize: int) -> Work:
    """Bytes and operations of a step of VAR; a block has 4 C^2 + 2 C H weights, H being the width of the MLP.

    Args:
        config: of the transformer.
        scale: index of the step.
        rows: samples times streams.
        itemsize: bytes of a weight.
    """
    new, width = config.lengths[scale], config.width
    seen = config.starts[scale] + new
    weights = config.depth * (4 * width**2 + 2 * width * config.hidden) + width * config.vocabulary
    cache = 2 * config.depth * rows * seen * width
    logits = 4 * rows * new * config.vocabulary
    attention = 4.0 * config.depth * rows * new * seen * width
    return Work((weights + cache) * itemsize + logits, 2.0 * rows * new * weights + attention)


def run(
    config: BackboneBenchConfig | None = None,
    *,
    model: Callable[[torch.device, torch.dtype], VAR] = var_d16,
    progress: Callable[[str], object] = lambda line: None,
) -> BenchReport:
    """Every scale beside its floor, their sum, and the growth over tokens, depth and batch.

    Args:
        config: what to measure.
        model: makes the VAR; by default one of VAR-d16's size with random weights.
        progress: receives a line before each part.

    Raises:
        ConfigError: a device that is not there, or a file that cannot be written.
    """
    config = config or BackboneBenchConfig()
    device, began = checked_device(config.device), perf_counter()
    dtype = getattr(torch, config.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    repeat = config.repeat or (3 if device.type == "cpu" else 20)
    with threads(config.threads):
        machine = machine_facts(device)
        rates = peak_rates(device, dtype, repeat=5)
        rates = replace(rates, bandwidth=max(rates.bandwidth, read_rate(device, dtype, repeat=5)))
        generator = model(device, dtype)
        progress(f"{generator.name}, {config.batch} image{'s' * (config.batch > 1)}, {repeat} runs")
        rows = _scales(generator, config.batch, repeat, rates)
        progress("growth over depth and batch")
        rows += _growth(generator, config, repeat)
    return finished(config, machine, rows, began, rates=rates, dtype=str(dtype).split(".")[-1], repeat=repeat)


def _scales(generator: VAR, batch: int, repeat: int, rates: Rates) -> list[BenchRow]:
    times = _step_times(generator, batch, repeat)
    shape, itemsize = generator.transformer.config, generator.transformer.head.weight.dtype.itemsize
    works = [work_of(shape, scale.index, len(_STREAMS) * batch, itemsize) for scale in generator.scales]
    floors = [work.floor_ms(rates) for work in works]
    name = f"{generator.name}, {batch} image{'s' * (batch > 1)}, two streams"
    rows = []
    for scale, ms, floor, work in zip(generator.scales, times, floors, works, strict=True):
        bound = "bytes" if work.bytes / rates.bandwidth > work.operations / rates.gemm else "operations"
        what = f"{name}, step {scale.height}x{scale.width}"
        rows.append(
            BenchRow(
                what, "step / floor", ms / floor, None, False, ms, floor, repeat,
                note=f"floor: {bound}", details=asdict(work),
            )
        )  # fmt: skip
    total, least = sum(times), sum(floors)
    rows.append(BenchRow(f"{name}, all steps", "step / floor", total / least, None, False, total, least, repeat))
    tokens = [float(scale.height * scale.width) for scale in generator.scales]
    if len(set(tokens)) > 1:
        predicted = slope(tokens, floors)
        rows.append(slope_row(f"{name}, over tokens", tokens, times, predicted=predicted, samples=repeat))
    return rows


def _growth(generator: VAR, config: BackboneBenchConfig, repeat: int) -> list[BenchRow]:
    models = {depth: _of_depth(generator, depth) for depth in config.depths}
    over_depth = [sum(_step_times(models[depth], 1, repeat)) for depth in config.depths]
    least = config.depths[0]
    over_batch = [sum(_step_times(models[least], batch, repeat)) for batch in config.batches]
    return [
        slope_row("transformer, all steps, over depth", config.depths, over_depth, samples=repeat),
        slope_row(f"transformer of depth {least}, all steps, over batch", config.batches, over_batch, samples=repeat),
    ]


def _of_depth(generator: VAR, depth: int) -> VAR:
    weight = generator.transformer.head.weight
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = VARTransformer(replace(generator.transformer.config, depth=depth))
    return VAR(transformer.to(weight.device, weight.dtype), generator.tokenizer, name=f"depth {depth}")


@torch.no_grad()
def _step_times(generator: VAR, batch: int, repeat: int) -> list[float]:
    """Median milliseconds of `predict` at each scale, in whole runs on random tokens."""
    found: list[list[float]] = [[] for _ in generator.scales]
    warm = _WARM.get(generator.device.type, 1)
    labels = [index % generator.transformer.config.classes for index in range(batch)]
    last = dict.fromkeys(_STREAMS, generator.count - 1)
    for turn in range(warm + repeat):
        spans = [Spans(generator.device) for _ in generator.scales]
        state = generator.begin(labels, last, SeededNoise(range(batch), generator.device))
        while (step := generator.next_step(state)) is not None:
            spans[step.index].start()
            generator.predict(state, step, _STREAMS, {})
            spans[step.index].stop()
            places = (batch, step.scale.height, step.scale.width)
            tokens = torch.randint(generator.transformer.config.vocabulary, places, device=generator.device)
            generator.advance(state, step, Draw(tokens))
        if turn >= warm:
            for times, span in zip(found, spans, strict=True):
                times.append(span.total_ms())
    return [statistics.median(times) for times in found]

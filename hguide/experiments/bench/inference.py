"""VAR's network run plainly, compiled and as CUDA graphs: how fast, and how many tokens differ from float32."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from hguide.backends.var.generator import VAR
from hguide.errors import ConfigError
from hguide.experiments.bench.end_to_end import var_d16
from hguide.experiments.bench.machine import checked_device, machine_facts, threads
from hguide.experiments.bench.report import BenchReport, BenchRow, finished
from hguide.experiments.bench.sampling import STRENGTH, TARGETS, TOP_K, TOP_P
from hguide.experiments.bench.straightforward_var import straightforward_sample
from hguide.experiments.bench.timing import timed
from hguide.generate import StepRecord, generate
from hguide.load import load
from hguide.noise import SeededNoise
from hguide.sampling import Replay, Sampler

__all__ = ["VARIANTS", "InferenceBenchConfig", "flip_rate", "run"]


def _channels_last(model: VAR) -> VAR:
    tokenizer: Any = copy.deepcopy(model.tokenizer)
    tokenizer.decoder.to(memory_format=torch.channels_last)
    return VAR(model.transformer, tokenizer, name=model.name, classes=model.class_names)


VARIANTS: Mapping[str, Callable[[VAR], VAR]] = MappingProxyType(
    {
        "eager": lambda model: model.with_options(),
        "channels_last": _channels_last,
        "graphs": lambda model: model.with_options(graphs=True),
        "channels_last+graphs": lambda model: _channels_last(model).with_options(graphs=True),
        "compile": lambda model: model.with_options(compile=True),
        "compile+graphs": lambda model: model.with_options(compile=True, graphs=True),
    }
)
"""Other forms of a model by name, sharing the transformer's weights; "channels_last" is of the decoder's maps."""

_GUIDANCE = f"cfg({STRENGTH})"
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class InferenceBenchConfig:
    """What to measure.

    Args:
        model: bundled name, file, folder or hub id of a VAR; None takes one of VAR-d16's size with random weights.
        dtypes: of the network: "float32", "bfloat16" or "float16".
        batches: images per run.
        variants: "eager", "channels_last", "graphs" and "channels_last+graphs" (CUDA alone), "compile",
            "compile+graphs"; all that the device has where empty.
        repeat: timed runs of each; they take turns with the straightforward loop.
        flips: images whose tokens are compared with those of float32 run plainly; 0 compares none.
        threads: CPU threads; None leaves them.
        device: "cpu", "cuda" or any other.
        out: JSON file for all numbers; None writes none.

    Raises:
        ConfigError: counts out of range, or an unknown name.
    """

    model: str | None = None
    dtypes: Sequence[str] = ("bfloat16", "float32")
    batches: Sequence[int] = (1,)
    variants: Sequence[str] = ()
    repeat: int = 5
    flips: int = 4
    threads: int | None = None
    device: str = "cpu"
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.repeat < 1 or self.flips < 0 or not self.batches or min(self.batches) < 1:
            raise ConfigError(
                f"batches and repeat are at least 1 and flips at least 0, got {list(self.batches)}, {self.repeat} and "
                f"{self.flips}."
            )
        for field, known in (("dtypes", _DTYPES), ("variants", tuple(VARIANTS))):
            unknown = [name for name in getattr(self, field) if name not in known]
            if unknown:
                raise ConfigError(f"{field} are {', '.join(known)}; got {unknown[0]!r}.")


def run(
    config: InferenceBenchConfig | None = None,
    *,
    model: Callable[[torch.device, torch.dtype], VAR] | None = None,
    progress: Callable[[str], object] = lambda line: None,
) -> BenchReport:
    """Each variant of the same weights in turn with the straightforward loop, then the tokens of each.

    Args:
        config: what to measure.
        model: makes the VAR in place of `config.model`.
        progress: receives a line before and after each part.

    Returns:
        The report.

    Raises:
        ConfigError: a device that is not there, a model of another family, or a file that cannot be written.
    """
    config = config or InferenceBenchConfig()
    device, began = checked_device(config.device), perf_counter()
    on_cuda = device.type == "cuda"
    names = config.variants or [name for name in VARIANTS if on_cuda or "graphs" not in name]
    make = model or (var_d16 if config.model is None else _loaded(config.model))
    rows: list[BenchRow] = []
    with threads(config.threads):
        machine = machine_facts(device)
        reference = make(device, torch.float32)
        for dtype in config.dtypes:
            plain = make(device, getattr(torch, dtype))
            for name in names:
                what = f"{dtype}, {name}"
                try:
                    for row in _rows(plain, VARIANTS[name](plain), reference, what, config, progress):
                        rows.append(row)
                        progress(f"  {row.quantity}: {row.ratio:.4g} ({row.ms or 0:.1f} ms)")
                except RuntimeError as error:
                    # A device too small, or a compiler that is missing: the other variants are still worth a figure.
                    note = str(error).strip().partition("\n")[0][:200]
                    rows.append(BenchRow(f"{plain.name}, {what}", "straightforward / hguide", None, None, note=note))
                    progress(f"  not measured: {note}")
    return finished(config, machine, rows, began)


def flip_rate(reference: VAR, other: VAR, *, seeds: Sequence[int], guidance: str = _GUIDANCE) -> float:
    """Share of the tokens that another type or form of the same weights draws otherwise, from the same tokens before.

    Args:
        reference: draws the tokens.
        other: draws with the same noise, and then goes on with the reference's tokens.
        seeds: one image each.
        guidance: of both.
    """
    sampler = Sampler(top_k=min(TOP_K, reference.channels.width), top_p=TOP_P)
    drawn: list[Tensor] = []
    generate(reference, 0, guidance, sampler, seeds=seeds, on_step=lambda record: drawn.append(record.draw.tokens))
    differing: list[Tensor] = []

    def compare(record: StepRecord) -> None:
        noise = SeededNoise(record.seeds, record.logits.device)
        own = sampler.categorical(record.logits, noise, record.step)
        differing.append((own != record.draw.tokens).flatten(1))

    generate(other, 0, guidance, Replay(tokens=drawn), seeds=seeds, on_step=compare)
    return torch.cat(differing, dim=1).double().mean().item()


def _loaded(name: str) -> Callable[[torch.device, torch.dtype], VAR]:
    def make(device: torch.device, dtype: torch.dtype) -> VAR:
        found = load(name, device=device, dtype=dtype)
        if not isinstance(found, VAR):
            raise ConfigError(f"{name} is a {type(found).__name__}: this benchmark is of VAR models.")
        return found

    return make


def _rows(
    plain: VAR,
    variant: VAR,
    reference: VAR,
    what: str,
    config: InferenceBenchConfig,
    progress: Callable[[str], object],
) -> Iterator[BenchRow]:
    for batch in config.batches:
        progress(f"{plain.name}, {what}, batch {batch}")
        yield _speed(plain, variant, batch, f"{what}, {batch} image{'s' * (batch > 1)}", config.repeat)
    # A captured run hands out no tokens; its kernels are those of the form without graphs.
    if config.flips and variant.captured is None:
        rate = flip_rate(reference, variant, seeds=range(config.flips))
        note = f"{rate:.2%} of the tokens of {config.flips} images, each from float32's tokens before"
        yield BenchRow(f"{plain.name}, {what}", "share of tokens that differ", rate, None, samples=1, note=note)


def _speed(plain: VAR, variant: VAR, batch: int, what: str, repeat: int) -> BenchRow:
    device, top_k = plain.device, min(TOP_K, plain.channels.width)
    labels = torch.arange(batch, device=device) % plain.transformer.config.classes
    classes, sampler = labels.tolist(), Sampler(top_k=top_k, top_p=TOP_P)

    def ours() -> object:
        return generate(variant, classes, _GUIDANCE, sampler, seeds=range(batch))

    def straightforward() -> object:
        return straightforward_sample(plain, labels, strength=STRENGTH, top_k=top_k, top_p=TOP_P)

    began = perf_counter()
    timed(ours, device)
    first_s = perf_counter() - began
    pairs = [(timed(ours, device)[0], timed(straightforward, device)[0]) for _ in range(repeat + 1)][1:]
    mine, theirs = zip(*pairs, strict=True)
    return BenchRow(
        what=f"{plain.name}, {what}, {_GUIDANCE}",
        quantity="straightforward / hguide",
        ratio=statistics.median(b / a for a, b in pairs),
        target=TARGETS.get((device.type, batch > 1), 1.0),
        at_least=True,
        ms=statistics.median(mine),
        against_ms=statistics.median(theirs),
        samples=repeat,
        quickest_ratio=min(theirs) / min(mine),
        note=f"first call {first_s:.1f} s",
        details={"first_call_s": first_s, "milliseconds": list(mine), "straightforward_milliseconds": list(theirs)},
    )

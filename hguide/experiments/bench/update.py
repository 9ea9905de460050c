"""SSG's update between two grids: its time, its floor, and the transform-per-call form beside it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import torch
from torch import Tensor

from hguide.errors import NumericalError
from hguide.experiments.bench.floors import products, traffic
from hguide.experiments.bench.shapes import Shapes
from hguide.experiments.bench.timing import Job, Timing, measure, timed
from hguide.grids import Grid
from hguide.priors import DSE, extrapolate, operator
from hguide.priors.operators import Factors

__all__ = ["Pair", "measure_pair", "pairs_of", "workspace"]

_BETA = 0.5
# Floors are medians of other jobs, so that a little below one is still the truth.
_LEAST_RATIO = 0.8
# PyTorch shares an elementwise job of this size among threads; it takes some hundredths of a millisecond.
_PARALLEL_ELEMENTS, _LONGEST_BARRIER_MS = 1 << 17, 1.0
# Of the largest logit; the two forms add in another order.
_AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_REFERENCE_REPEAT, _LONG_MS = 3, 1000.0

Buffers = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Pair:
    """The update between two consecutive grids.

    Attributes:
        source: `(h, w)`.
        target: `(H, W)`.
        form: "dense" or "factors", as the compiled prior is.
        update: of the update.
        traffic: bytes over bandwidth.
        products: operations over GEMM rate, by form.
        gigabytes: that the update reads and writes, without the prior.
        gigaoperations: of the products, by form.
        barrier: of a job that is short but runs on several threads.
        reference: of the transform-per-call form, where it was run.
        captured: whether graphs were replayed, as on CUDA: then no thread is waited for, and a kernel can beat the
            library's product that the floor is made of.
    """

    source: Grid
    target: Grid
    form: str
    update: Timing
    traffic: Timing
    products: Mapping[str, Timing]
    gigabytes: float
    gigaoperations: Mapping[str, float]
    barrier: Timing
    reference: Timing | None
    captured: bool = False

    @property
    def floor_ms(self) -> float:
        """The larger of bytes over bandwidth and operations over GEMM rate, in the form that is used."""
        return max(self.traffic.ms, self.products[self.form].ms)

    @property
    def quicker_form_ms(self) -> float:
        """The same for the form whose products are quicker, whichever is used."""
        return max(self.traffic.ms, min(timing.ms for timing in self.products.values()))

    @property
    def quickest_ratio(self) -> float:
        """Update over floor by the quickest sample of each, which other processes disturb least."""
        return self.update.quickest_ms / max(self.traffic.quickest_ms, self.products[self.form].quickest_ms)

    @property
    def valid(self) -> bool:
        """False where threads waited for a core, so that waiting was timed and not the work.

        Then a short parallel job takes milliseconds, or the update is quicker than its floor.
        """
        if self.captured:
            return True
        return self.barrier.ms < _LONGEST_BARRIER_MS and self.update.ms >= _LEAST_RATIO * self.floor_ms

    @property
    def grids(self) -> str:
        """In words."""
        return f"{self.source[0]}x{self.source[1]} -> {self.target[0]}x{self.target[1]}"


def workspace(shapes: Shapes, batch: int, device: torch.device, dtype: torch.dtype) -> Buffers:
    """Three flat buffers of the largest map: this step's logits, those before, the result; every pair uses parts."""
    size = batch * max(side * side for side in shapes.sides) * shapes.channels
    generator = torch.Generator(device).manual_seed(0)
    now, before = (torch.empty(size, device=device, dtype=dtype).uniform_(-8, 8, generator=generator) for _ in range(2))
    return now, before, torch.zeros(size, device=device, dtype=dtype)


def pairs_of(
    shapes: Shapes, batch: int, device: torch.device, dtype: torch.dtype, *, repeat: int, budget_s: float, largest: int
) -> Iterator[Pair]:
    """The pairs of a schedule, coarse to fine, each measured when it is asked for.

    Args:
        shapes: of the model.
        batch: b.
        device: where the update runs.
        dtype: of the logits.
        repeat: samples of each time.
        budget_s: for the samples of a pair.
        largest: how many pairs to measure, from the last; 0 for all.
    """
    buffers = workspace(shapes, batch, device, dtype)
    wanted = shapes.pairs[-largest:]
    # Transforms take seconds per map: all the larger pairs at the smallest batch, the largest alone at the others.
    slow = wanted[-3:] if batch == shapes.batches[0] else wanted[-1:]
    for source, target in wanted:
        referenced = (source, target) in slow
        yield measure_pair(
            source, target, shapes.channels, batch, buffers, repeat=repeat, budget_s=budget_s, referenced=referenced
        )


@torch.no_grad()
def measure_pair(
    source: Grid,
    target: Grid,
    channels: int,
    batch: int,
    buffers: Buffers,
    *,
    repeat: int,
    budget_s: float,
    referenced: bool,
) -> Pair:
    """One pair: update, floors and, where asked for, the transform-per-call form.

    Args:
        source: `(h, w)`.
        target: `(H, W)`.
        channels: v.
        batch: b.
        buffers: flat, at least b H W v elements each.
        repeat: samples of each time.
        budget_s: for the samples.
        referenced: whether to run the transform-per-call form.

    Raises:
        NumericalError: the two forms disagree.
    """
    prior, (now, _, _) = DSE(), buffers
    device, dtype = now.device, now.dtype
    logits, previous, out = (
        _map(buffer, batch, grid, channels) for buffer, grid in zip(buffers, (target, source, target), strict=True)
    )
    matrix = operator(prior, source, target, None, device, dtype)
    elements = 2 * logits.numel() + previous.numel()
    forms = products(source, target, channels, batch, len(prior.factors(source, target)), device=device, dtype=dtype)

    few = torch.zeros(_PARALLEL_ELEMENTS, device=device, dtype=dtype)

    def update() -> Tensor:
        return extrapolate(logits, previous, matrix, _BETA, out=out)

    jobs: dict[str, Job] = {
        "update": update,
        "traffic": traffic(buffers, elements),
        "barrier": partial(torch.add, few, few, out=torch.empty_like(few)),
    }
    jobs |= {f"{form} {place}": each.job for form, found in forms.items() for place, each in enumerate(found)}
    timings = measure(jobs, device, repeat=repeat, budget_s=budget_s, captured=True)
    whole = {
        form: reduce(add, (each.whole_of(timings[f"{form} {place}"]) for place, each in enumerate(found)))
        for form, found in forms.items()
    }
    return Pair(
        source=source,
        target=target,
        form="factors" if isinstance(matrix, Factors) else "dense",
        update=timings["update"],
        traffic=timings["traffic"],
        products=whole,
        gigabytes=elements * logits.element_size() / 1e9,
        gigaoperations={form: sum(each.whole for each in found) / 1e9 for form, found in forms.items()},
        barrier=timings["barrier"],
        reference=_reference(prior, logits, previous, update(), target) if referenced else None,
        captured=device.type == "cuda",
    )


def _map(buffer: Tensor, batch: int, grid: Grid, channels: int) -> Tensor:
    return buffer[: batch * grid[0] * grid[1] * channels].view(batch, *grid, channels)


def _reference(prior: DSE, logits: Tensor, previous: Tensor, updated: Tensor, target: Grid) -> Timing:
    """Time of the same update by transforms of every map, after a check that it is the same."""

    def job() -> Tensor:
        return logits + _BETA * (logits - prior.reference(previous, target))

    prior.reference(previous[:1, ..., :1], target)
    first, result = timed(job, logits.device)
    error = float((result - updated).abs().max()) / float(updated.abs().max())
    if not error <= _AGREEMENT[logits.dtype]:
        raise NumericalError(
            f"the update on {tuple(logits.shape)} differs from the transform-per-call form by {error:.2g} of the "
            "largest logit; times of a wrong result are not reported."
        )
    del result
    again = 0 if first > _LONG_MS else _REFERENCE_REPEAT - 1
    samples = [first, *(timed(job, logits.device)[0] for _ in range(again))]
    return Timing(statistics.median(samples), min(samples), len(samples))

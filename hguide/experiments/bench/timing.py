"""Medians of short jobs, measured side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import torch

__all__ = ["Job", "Spans", "Timing", "measure", "timed"]

Job = Callable[[], object]
Result = TypeVar("Result")

_SAMPLE_MS = 0.3
_MOST_CALLS = 100
_FEWEST_ROUNDS = 5


@dataclass(frozen=True)
class Timing:
    """How long one call of a job takes.

    Attributes:
        ms: median, in milliseconds.
        quickest_ms: the quickest sample.
        samples: their number.
    """

    ms: float
    quickest_ms: float
    samples: int

    def __add__(self, other: Timing) -> Timing:
        """One after the other."""
        return Timing(self.ms + other.ms, self.quickest_ms + other.quickest_ms, min(self.samples, other.samples))


def measure(
    jobs: Mapping[str, Job],
    device: torch.device,
    *,
    repeat: int,
    budget_s: float = math.inf,
    captured: bool = False,
) -> dict[str, Timing]:
    """The median time of each job.

    The jobs take turns, so that whatever else the machine does falls on all of them alike. Every sample follows an
    untimed one of the same job: what fits the caches is warm. A sample of a job shorter than 0.3 ms is the mean of
    several calls.

    Args:
        jobs: by name.
        device: where they compute; on CUDA, time lies between two events.
        repeat: samples of each job.
        budget_s: with less than this left for all samples there are fewer of them, down to 5 (or `repeat`).
        captured: on CUDA, time replays of a graph of each job, so that the device is timed and not the launches of
            short kernels; such jobs must not wait for the device. Without meaning elsewhere.

    Returns:
        The timing of each job.
    """
    replayed = captured and device.type == "cuda"
    estimates = {}
    for name, job in jobs.items():
        job()
        # A launch takes longer than many a kernel.
        once = _replay(job, 1) if replayed else job
        once()
        estimates[name] = timed(once, device)[0]
    calls = {name: max(1, min(_MOST_CALLS, math.ceil(_SAMPLE_MS / max(ms, 1e-6)))) for name, ms in estimates.items()}
    if replayed:
        jobs = {name: _replay(job, calls[name]) for name, job in jobs.items()}
    else:
        jobs = {name: partial(_repeat, job, calls[name]) for name, job in jobs.items()}
    round_s = sum(ms * 2 * calls[name] for name, ms in estimates.items()) / 1e3
    rounds = repeat if round_s * repeat <= budget_s else max(min(_FEWEST_ROUNDS, repeat), int(budget_s / round_s))
    samples: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            job()
            samples[name].append(timed(job, device)[0] / calls[name])
    return {name: Timing(statistics.median(found), min(found), len(found)) for name, found in samples.items()}


def timed(job: Callable[[], Result], device: torch.device) -> tuple[float, Result]:
    """Milliseconds of one call, and what it returned."""
    spans = Spans(device)
    spans.start()
    result = job()
    spans.stop()
    return spans.total_ms(), result


def _repeat(job: Job, calls: int) -> None:
    for _ in range(calls):
        job()


def _replay(job: Job, calls: int) -> Job:
    """A CUDA graph of consecutive calls."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            job()
    return graph.replay


class Spans:
    """Stretches of time on a device, added up at the end.

    On CUDA the events lie in the current stream and nothing is synchronised before the total is read, so that
    measuring does not change what is measured.
    """

    def __init__(self, device: torch.device) -> None:
        """None measured yet.

        Args:
            device: where the work is done.
        """
        self._cuda = device.type == "cuda"
        self._marks: list[Any] = []

    def start(self) -> None:
        """Begin a stretch."""
        self._marks.append(self._mark())

    def stop(self) -> None:
        """End it."""
        self._marks.append(self._mark())

    def total_ms(self) -> float:
        """Milliseconds of all stretches."""
        ends = list(zip(self._marks[::2], self._marks[1::2], strict=True))
        if not self._cuda:
            return sum(stop - start for start, stop in ends) * 1e3
        torch.cuda.synchronize()
        return sum(start.elapsed_time(stop) for start, stop in ends)

    def _mark(self) -> Any:
        if not self._cuda:
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

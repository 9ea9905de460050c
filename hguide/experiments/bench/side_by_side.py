"""Two ways to do the same, timed in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from hguide.experiments.bench.report import BenchRow
from hguide.experiments.bench.timing import timed

__all__ = ["side_by_side"]


def side_by_side(
    what: str,
    ours: Callable[[], object],
    other: Callable[[], object],
    device: torch.device,
    *,
    repeat: int,
    target: float,
    note: str = "",
) -> BenchRow:
    """How many times faster ours is: the median over turns of the ratio within a turn; who begins alternates.

    Args:
        what: in words.
        ours: the one that is judged.
        other: the straightforward one.
        device: where both compute.
        repeat: turns, after one that is not timed.
        target: least ratio.
        note: for the table.
    """
    mine, theirs = [], []
    for turn in range(repeat + 1):
        first, second = (ours, other) if turn % 2 else (other, ours)
        a, b = timed(first, device)[0], timed(second, device)[0]
        if turn:
            mine.append(a if turn % 2 else b)
            theirs.append(b if turn % 2 else a)
    return BenchRow(
        what=what,
        quantity="straightforward / hguide",
        ratio=statistics.median(b / a for a, b in zip(mine, theirs, strict=True)),
        target=target,
        at_least=True,
        ms=statistics.median(mine),
        against_ms=statistics.median(theirs),
        samples=repeat,
        note=note,
        quickest_ratio=min(theirs) / min(mine),
    )

"""Numbers of one step over all samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch

from hguide.experiments.trace.records import StepRow
from hguide.grids import Grid
from hguide.theory.dynamics import mean_over_steps

__all__ = ["QUANTITIES", "Spread", "StepSummary", "over_steps", "summarise"]

QUANTITIES: Mapping[str, str] = MappingProxyType(
    {
        "strength": "mean over the tokens of |n|, the norm of the guidance signal over the channels",
        "evenness": "Pielou's evenness of the signal's peaks over the tokens, 0 to 1",
        "divergence": "Jensen-Shannon divergence of the signal's peaks from those of the reference, in bits, 0 to 1",
        "entropy_given": "mean over the tokens of the entropy of the given condition's logits, in nats",
        "entropy_guided": "the same of the guided logits",
        "entropy_drawn": "the same of what is drawn from, after temperature, top-k and top-p",
        "kept": "mean over the tokens of the candidates after top-k and top-p; for bits the values left, 1 to 2",
        "kept_least": "at the token with the fewest",
        "kept_most": "at the token with the most",
        "residual": "mean over the tokens of |l_k - P l_{k-1}|^2, the energy of the semantic residual",
        "share": "that energy relative to the mean of |l_k|^2",
    }
)
"""Each number of a step, in words."""


@dataclass(frozen=True)
class Spread:
    """One number over the samples that have it.

    Attributes:
        samples: how many.
        mean: of them.
        low: the 10 % quantile.
        high: the 90 % quantile.
    """

    samples: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class StepSummary:
    """One step over all samples.

    Attributes:
        index: step index from 0.
        call: network call at this index.
        grid: of the full map.
        tokens: number of positions that the step predicts.
        numbers: key of `QUANTITIES` -> its spread; None where no sample has it.
        bands: energy of the semantic residual by band, the lowest first; None where no sample has it.
    """

    index: int
    call: int
    grid: Grid
    tokens: int
    numbers: Mapping[str, Spread | None]
    bands: tuple[Spread, ...] | None


def summarise(samples: Sequence[Sequence[StepRow]]) -> list[StepSummary]:
    """The steps of all samples, in order; where samples take different steps, each over those that take it."""
    rows: dict[tuple[int, int], list[StepRow]] = {}
    for sample in samples:
        for row in sample:
            rows.setdefault((row.index, row.call), []).append(row)
    return [_summary(rows[key]) for key in sorted(rows)]


def _summary(rows: Sequence[StepRow]) -> StepSummary:
    first = rows[0]
    banded = [row.bands for row in rows if row.bands is not None]
    bands = tuple(spread for each in zip(*banded, strict=True) if (spread := _spread(each)) is not None)
    numbers = {name: _spread(getattr(row, name) for row in rows) for name in QUANTITIES}
    return StepSummary(first.index, first.call, first.grid, first.tokens, MappingProxyType(numbers), bands or None)


def _spread(values: Iterable[float | None]) -> Spread | None:
    known = np.array([value for value in values if value is not None], float)
    if not len(known):
        return None
    low, high = np.quantile(known, (0.1, 0.9))
    return Spread(len(known), float(known.mean()), float(low), float(high))


def over_steps(samples: Sequence[Sequence[StepRow]], name: str) -> float | None:
    """Mean over the samples of the mean over the steps, each step weighted by its tokens; None where no step has it."""
    found = []
    for sample in samples:
        known = [(value, row.tokens) for row in sample if (value := getattr(row, name)) is not None]
        if known:
            values, tokens = zip(*known, strict=True)
            found.append(float(mean_over_steps([torch.tensor([value]) for value in values], tokens)))
    return float(np.mean(found)) if found else None

"""How evenly guidance lies over the tokens of each step, and how it moves between steps: the figures of IGG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from hguide.errors import ConfigError
from hguide.experiments.measures.bootstrap import Interval, Statistic, bootstrap, bootstrap_difference
from hguide.experiments.measures.clusters import Clusters
from hguide.experiments.paper.watch import watch
from hguide.experiments.trace.signal import guidance_signal, signal_peaks
from hguide.generate import StepRecord
from hguide.generator import ScaleGenerator
from hguide.sampling import Sampler
from hguide.theory.dynamics import divergence, evenness, mean_over_steps

__all__ = ["QUANTITIES", "StepSpreads", "spread_difference", "spread_interval", "step_spreads"]

SIGNALS = {"raw": "contrast", "scaled": "scaled"}
"""Name in the source -> signal of a trace."""

_MEASURES = ("evenness", "divergence from the step before", "divergence from the last step")

QUANTITIES: tuple[str, ...] = tuple(f"{measure}, {name}" for name in SIGNALS for measure in _MEASURES)
"""What is measured at each step."""


@dataclass(frozen=True, eq=False)
class StepSpreads:
    """Evenness and divergence of each image and step.

    Attributes:
        values: one of `QUANTITIES` -> `(n, K)`, NaN where it is not defined (one token, no positive peak).
        seeds: of the images.
        tokens: of each step.
    """

    values: Mapping[str, Float64[Tensor, "n k"]]
    seeds: tuple[int, ...]
    tokens: tuple[int, ...]

    def of_step(self, quantity: str, step: int | None) -> Float64[Tensor, " n"]:
        """The values of a step, or of all steps weighted by their tokens (None)."""
        found = self.values[quantity]
        return mean_over_steps(list(found.unbind(1)), self.tokens) if step is None else found[:, step]

    def defined(self, quantity: str, step: int | None) -> bool:
        """Whether any image has it."""
        return not bool(self.of_step(quantity, step).isnan().all())


def step_spreads(
    generator: ScaleGenerator,
    conditions: Sequence[Any],
    guidance: str,
    sampler: Sampler,
    seeds: Sequence[int],
    **batches: Any,
) -> StepSpreads:
    """Sample, and look at the guidance of every step, in the raw gauge of IGG's authors; arguments as of `watch`.

    Raises:
        ConfigError: a generator of partial maps, or whose steps depend on the sample.
    """
    if generator.partial or not generator.lockstep:
        raise ConfigError(
            f"{generator.name} predicts parts of maps, or in steps that depend on the sample; evenness and divergence "
            "by step need one full map at each step: hguide trace shows such runs."
        )

    def peaks(record: StepRecord, kind: str) -> Tensor | None:
        signal = guidance_signal(record, generator.channels, kind, gauge="raw")
        flat = None if signal is None else signal_peaks(signal, generator.channels).double().cpu()
        return None if flat is None else flat.unflatten(1, record.step.grid)[..., None]

    def seen(record: StepRecord) -> tuple[dict[str, Tensor | None], int]:
        return {name: peaks(record, kind) for name, kind in SIGNALS.items()}, len(record.logits)

    parts: list[dict[str, Tensor]] = []
    for steps in watch(seen, generator, conditions, guidance, sampler, seeds, **batches):
        found = (_indices(name, [step[name] for step, _ in steps], steps[0][1]) for name in SIGNALS)
        parts.append({key: value for each in found for key, value in each.items()})
    values = {quantity: torch.cat([part[quantity] for part in parts]) for quantity in QUANTITIES}
    return StepSpreads(values, tuple(seeds), tuple(scale.tokens for scale in generator.scales))


def spread_interval(spreads: StepSpreads, quantity: str, step: int | None, replicates: int = 1000) -> Interval:
    """Mean of a quantity over the images that have it, with its interval over seeds.

    Args:
        spreads: as measured.
        quantity: one of `QUANTITIES`.
        step: index, or None for all steps.
        replicates: number of resamplings.
    """
    statistic = _mean(spreads.of_step(quantity, step))
    return bootstrap(statistic, Clusters.of(spreads.seeds), replicates=replicates)


def spread_difference(
    first: StepSpreads, second: StepSpreads, quantity: str, step: int | None, replicates: int = 1000
) -> Interval:
    """`spread_interval` of the first less that of the second, paired by seed."""
    one, other = (_mean(each.of_step(quantity, step)) for each in (first, second))
    seeds = Clusters.of(first.seeds), Clusters.of(second.seeds)
    return bootstrap_difference(one, other, *seeds, replicates=replicates)


def _mean(values: Float64[Tensor, " n"]) -> Statistic:
    known, filled = ~values.isnan(), values.nan_to_num(0.0)

    def statistic(weights: Tensor, scenes: Tensor) -> float:
        return float((weights * filled).sum() / (weights * known).sum())

    return statistic


def _indices(name: str, peaks: Sequence[Tensor | None], samples: int) -> dict[str, Float64[Tensor, "n k"]]:
    """The three measures of a signal; a map of peaks is a signal of one channel."""
    last = peaks[-1]
    rows: list[tuple[Tensor, ...]] = []
    nothing = torch.full((samples,), torch.nan, dtype=torch.float64)
    for place, own in enumerate(peaks):
        if own is None:
            rows.append((nothing, nothing, nothing))
            continue
        before = peaks[place - 1] if place > 0 else None
        one_token = own.shape[1] * own.shape[2] == 1
        apart = [nothing if each is None or one_token else divergence(own, each) for each in (before, last)]
        rows.append((evenness(own), *apart))
    columns = zip(*rows, strict=True)
    return {f"{each}, {name}": torch.stack(column, 1) for each, column in zip(_MEASURES, columns, strict=True)}

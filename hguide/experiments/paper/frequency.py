"""What each step changes below and above the previous step's Nyquist frequency, with and without SSG (Fig. 4a)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from hguide.experiments.measures.bootstrap import Interval, Statistic, bootstrap, bootstrap_difference
from hguide.experiments.measures.clusters import Clusters
from hguide.experiments.measures.frequency_change import FrequencyChange, frequency_change
from hguide.experiments.measures.radial_power import radial_power
from hguide.experiments.paper.watch import watch
from hguide.generate import StepRecord
from hguide.generator import ScaleGenerator
from hguide.grids import Grid
from hguide.sampling import Sampler

__all__ = ["StepPowers", "band_difference", "band_interval", "step_powers"]


@dataclass(frozen=True, eq=False)
class StepPowers:
    """Radial power of the picture known after each step.

    Attributes:
        power: `(n, K, bins)`, one row per image and step.
        seeds: of the images.
        scales: the grid of each step.
        size: of the decoded pictures.
    """

    power: Float64[Tensor, "n k bins"]
    seeds: tuple[int, ...]
    scales: tuple[Grid, ...]
    size: Grid

    def change(self, weights: Float64[Tensor, " n"] | None = None) -> FrequencyChange:
        """Change of log magnitude from step to step, of all images or of weighted ones."""
        weights = torch.ones(len(self.power), dtype=torch.float64) if weights is None else weights
        return frequency_change(torch.einsum("n,nkb->kb", weights, self.power), self.scales, self.size)


def step_powers(
    generator: ScaleGenerator,
    conditions: Sequence[Any],
    guidance: str,
    sampler: Sampler,
    seeds: Sequence[int],
    **batches: Any,
) -> StepPowers:
    """Sample, and decode after every step; arguments as of `watch`."""

    def seen(record: StepRecord) -> tuple[Tensor, Grid]:
        picture = record.decode()
        return radial_power(picture), (picture.shape[2], picture.shape[3])

    parts = watch(seen, generator, conditions, guidance, sampler, seeds, **batches)
    power = torch.cat([torch.stack([each for each, _ in steps], dim=1) for steps in parts])
    return StepPowers(power, tuple(seeds), tuple(scale.grid for scale in generator.scales), parts[-1][-1][1])


def band_interval(powers: StepPowers, step: int, band: str, replicates: int = 1000) -> Interval:
    """Mean change of a band at a step, with its interval over seeds.

    Args:
        powers: as measured.
        step: from 1, the later step of the pair.
        band: "below" (at and below the previous step's Nyquist frequency) or "above".
        replicates: number of resamplings.
    """
    return bootstrap(_band(powers, step, band), Clusters.of(powers.seeds), replicates=replicates)


def band_difference(first: StepPowers, second: StepPowers, step: int, band: str, replicates: int = 1000) -> Interval:
    """`band_interval` of the first less that of the second, paired by seed."""
    one, other = Clusters.of(first.seeds), Clusters.of(second.seeds)
    return bootstrap_difference(_band(first, step, band), _band(second, step, band), one, other, replicates=replicates)


def _band(powers: StepPowers, step: int, band: str) -> Statistic:
    def statistic(weights: Tensor, scenes: Tensor) -> float:
        return float(getattr(powers.change(weights), band)[step - 1])

    return statistic

"""Completion: a real picture up to a scale, the model from there, and the distance to the picture (Fig. 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hguide.experiments.measures.bootstrap import Interval, Statistic, bootstrap, bootstrap_difference
from hguide.experiments.measures.clusters import Clusters
from hguide.generate import generate
from hguide.generator import ScaleGenerator
from hguide.sampling import Prefix, Sampler

__all__ = ["Completions", "complete", "completion_difference", "completion_interval"]

Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Completions:
    """Distances of completed pictures from the real ones.

    Attributes:
        distances: `(n, prefixes)`.
        prefixes: number of given scales of each column.
        scenes: of the pictures.
    """

    distances: Float64[Tensor, "n prefixes"]
    prefixes: tuple[int, ...]
    scenes: tuple[str, ...]


def complete(
    generator: ScaleGenerator,
    images: Float[Tensor, "n 3 H W"],
    conditions: Sequence[Any],
    scenes: Sequence[str],
    guidance: str,
    sampler: Sampler,
    distance: Distance,
    *,
    prefixes: Sequence[int],
    batch: int = 32,
    progress: Callable[[int], object] = lambda done: None,
) -> Completions:
    """Encode pictures, keep the tokens of the first scales, sample the others; image i has seed i.

    Args:
        generator: the model; its family encodes.
        images: real pictures in [0, 1] of the model's size.
        conditions: one per picture.
        scenes: that the pictures are of, for intervals.
        guidance: in its text form.
        sampler: temperature and filters of the draws.
        distance: of pictures `(b, 3, H, W)` and `(b, 3, H, W)` to `(b,)`.
        prefixes: numbers of given scales; 0 gives none, K gives the reconstruction.
        batch: pictures at once.
        progress: receives the number of pictures that each batch finished.
    """
    rows = []
    for first in range(0, len(images), batch):
        part = images[first : first + batch]
        seeds, tokens = range(first, first + len(part)), generator.encode(part)
        columns = []
        for prefix in prefixes:
            given = Prefix(sampler.temperature, sampler.top_k, sampler.top_p, tokens=tokens[:prefix])
            made = generate(generator, list(conditions[first : first + batch]), guidance, given, seeds=seeds)
            columns.append(distance(made, part).double())
            progress(len(part))
        rows.append(torch.stack(columns, dim=1))
    return Completions(torch.cat(rows), tuple(prefixes), tuple(scenes))


def completion_interval(completions: Completions, prefix: int, replicates: int = 1000) -> Interval:
    """Mean distance after `prefix` given scales, with its interval over scenes."""
    return bootstrap(_mean(completions, prefix), Clusters.of(completions.scenes), replicates=replicates)


def completion_difference(first: Completions, second: Completions, prefix: int, replicates: int = 1000) -> Interval:
    """Mean distance of the first less that of the second, paired by picture."""
    scenes = Clusters.of(first.scenes)
    return bootstrap_difference(
        _mean(first, prefix), _mean(second, prefix), scenes, Clusters.of(second.scenes), replicates=replicates
    )


def _mean(completions: Completions, prefix: int) -> Statistic:
    values = completions.distances[:, completions.prefixes.index(prefix)]

    def statistic(weights: Tensor, scenes: Tensor) -> float:
        return float(weights @ values / weights.sum())

    return statistic

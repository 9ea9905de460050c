"""The resamplings of a bootstrap, drawn once for all measures of a cell."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from hguide.experiments.measures.clusters import Clusters

__all__ = ["SAMPLE", "SCENES", "draws"]

SAMPLE, SCENES = 0, 1


def draws(clusters: Clusters, replicates: int, side: int) -> Float64[Tensor, "replicates n"]:
    """How often each row counts in each replicate: the draws of `hguide.experiments.measures.bootstrap`, seed 0.

    Args:
        clusters: what is drawn as one.
        replicates: number of resamplings.
        side: `SAMPLE` or `SCENES`, which are drawn independently.
    """
    return _draws(clusters.ids, clusters.strata, replicates, side)


@lru_cache(maxsize=4)
def _draws(
    ids: tuple[int | str, ...], strata: tuple[int | str, ...] | None, replicates: int, side: int
) -> Float64[Tensor, "replicates n"]:
    clusters = Clusters(ids, strata)
    return torch.stack([clusters.draw(np.random.default_rng([0, each, side])) for each in range(replicates)])

"""From features to numbers: each measure with its bootstrap, stored, and paired differences from the same draws."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from hguide.errors import ConfigError, NumericalError
from hguide.experiments.ablation.columns import BOUNDS, COLUMNS
from hguide.experiments.ablation.draws import SAMPLE, SCENES, draws
from hguide.experiments.ablation.kernel_replicates import kernel_replicates
from hguide.experiments.ablation.results import Comparison, Estimate, Spectrum
from hguide.experiments.ablation.sealed import Sealed, read_sealed, write_sealed
from hguide.experiments.measures.bootstrap import Interval, Kind, Statistic, interval_of
from hguide.experiments.measures.class_accuracy import class_accuracy_statistic
from hguide.experiments.measures.classifier_score import classifier_score_statistic
from hguide.experiments.measures.clusters import Clusters
from hguide.experiments.measures.frechet_distance import frechet_statistic
from hguide.experiments.measures.kernel_statistic import kernel_statistic
from hguide.experiments.measures.power_spectrum import power_ratio, spectrum_statistic
from hguide.experiments.measures.precision_recall import precision_recall_statistic
from hguide.experiments.reference import Crops

__all__ = ["Measured", "Sample", "compared", "measure", "spectrum"]

KERNEL = {"kd": "features", "kd_squeezenet": "squeezenet"}
WITHOUT_REFERENCE = ("score", "accuracy")
VERSION = 1
"""Goes up when a statistic changes, so that stored replicates are not taken for those of the new one."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows of generated pictures, or of real ones that stand in their place.

    Attributes:
        arrays: "features", "spatial", "power", "logits" and, for the repeat, "squeezenet": `(n, d)`.
        clusters: seeds, or scenes; what is drawn as one.
        labels: classes asked for; None where the classifier does not know them.
    """

    arrays: Mapping[str, Float[Tensor, "n d"]]
    clusters: Clusters
    labels: Int[Tensor, " n"] | None


@dataclass(frozen=True, eq=False)
class Measured:
    """A measure and its replicates, of which paired differences are made.

    Attributes:
        interval: the number and where it may lie.
        replicates: on each resampling.
        bounds: smallest and largest value that the measure can have.
    """

    interval: Interval
    replicates: Float64[np.ndarray, " replicates"]
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @property
    def estimate(self) -> Estimate:
        """As results.json keeps it: an interval ends where the measure does (a share is at most 1)."""
        found = self.interval
        low, high = (min(max(end, self.bounds[0]), self.bounds[1]) for end in (found.low, found.high))
        return Estimate(found.estimate, low, high, found.bias)


def measure(key: str, sample: Sample, real: Crops, *, replicates: int, folder: Path | None = None) -> Measured:
    """A measure of a sample against as many real crops.

    Args:
        key: of `COLUMNS`.
        sample: what is measured.
        real: what it is compared with.
        replicates: of the bootstrap over seeds and scenes.
        folder: where replicates are kept, so that equal ones are not computed again.

    Raises:
        ConfigError: unequal counts, or too few images.
        NumericalError: features or replicates that are not finite.
    """
    scenes = None if key in WITHOUT_REFERENCE else real.clusters()
    path = None if folder is None else folder / f"{key}_{_digest(key, sample, real, replicates)}.npz"
    stored = None if path is None else _stored(path)
    if stored is None:
        stored = _computed(key, sample, real, scenes, replicates)
        if path is not None:
            write_sealed(path, Sealed({"estimate": np.array(stored[0]), "replicates": stored[1]}))
    estimate, found = stored
    kind = cast(Kind, COLUMNS[key].interval)
    bounds = BOUNDS.get(key, (-math.inf, math.inf))
    return Measured(interval_of(estimate, found, sample.clusters, scenes, kind=kind), found, bounds)


def _computed(
    key: str, sample: Sample, real: Crops, scenes: Clusters | None, replicates: int
) -> tuple[float, Float64[np.ndarray, " replicates"]]:
    """The estimate and the replicates of `hguide.experiments.measures.bootstrap.replicates_of`."""
    statistic = _statistic(key, sample, real)
    drawn = draws(sample.clusters, replicates, SAMPLE)
    none = torch.zeros(0, dtype=torch.float64)
    estimate = statistic(sample.clusters.ones(), none if scenes is None else scenes.ones())
    if key in KERNEL and scenes is not None:
        rows = sample.arrays[KERNEL[key]], real.arrays[KERNEL[key]]
        found = kernel_replicates(*rows, sample.clusters, scenes, drawn, draws(scenes, replicates, SCENES)).numpy()
    else:
        other = [none] * replicates if scenes is None else draws(scenes, replicates, SCENES)
        found = np.array([statistic(mine, theirs) for mine, theirs in zip(drawn, other, strict=True)])
    if not (np.isfinite(found).all() and np.isfinite(estimate)):
        raise NumericalError(
            f"{COLUMNS[key].name} is not finite on {int((~np.isfinite(found)).sum())} of {replicates} resamplings: "
            f"{sample.clusters.count} images are too few for it."
        )
    return float(estimate), found


def compared(key: str, cell: str, mine: Measured, baseline: str, theirs: Measured) -> Comparison:
    """The difference of two cells with the same seeds: the draws of both bootstraps are the same, so it is paired.

    Args:
        key: of the measure.
        cell: hash.
        mine: of the cell.
        baseline: hash.
        theirs: of the baseline.
    """
    estimate = mine.interval.estimate - theirs.interval.estimate
    difference = mine.replicates - theirs.replicates
    kind = cast(Kind, COLUMNS[key].interval)
    # The ids only count seeds here; both were drawn from the same ones.
    ids = Clusters.of(range(mine.interval.n_seeds))
    found = interval_of(estimate, difference, ids, kind=kind)
    return Comparison(cell, baseline, key, found.estimate, found.low, found.high, found.excludes_zero)


def spectrum(sample: Sample, real: Crops) -> Spectrum:
    """Mean radial power of the sample over that of the reference."""
    found = power_ratio(sample.arrays["power"].double().mean(0), real.arrays["power"].double().mean(0))
    # Nyquist is half a cycle per pixel.
    return Spectrum(tuple((found.frequencies / 2).tolist()), tuple(found.ratio.tolist()))


def _statistic(key: str, sample: Sample, real: Crops) -> Statistic:
    def pair(name: str) -> tuple[Tensor, Tensor]:
        return sample.arrays[name], real.arrays[name]

    if key in KERNEL:
        return kernel_statistic(*pair(KERNEL[key]), seeds=sample.clusters, scenes=real.clusters())
    if key in ("precision", "recall"):
        return precision_recall_statistic(*pair("features"), which="precision" if key == "precision" else "recall")
    if key == "score":
        return classifier_score_statistic(sample.arrays["logits"])
    if key == "accuracy":
        assert sample.labels is not None
        return class_accuracy_statistic(sample.arrays["logits"], sample.labels)
    if key == "spectrum_distance":
        return spectrum_statistic(*pair("power"))
    return frechet_statistic(*pair({"fd": "features", "sfd": "spatial", "fd_squeezenet": "squeezenet"}[key]))


def _digest(key: str, sample: Sample, real: Crops, replicates: int) -> str:
    """Of all that the replicates follow from."""
    digest = hashlib.sha256(f"{VERSION} {key} {replicates} {sample.clusters.ids} {sample.clusters.strata}".encode())
    tensors = [*sample.arrays.values(), *real.arrays.values(), real.scenes]
    for tensor in (*tensors, *(each for each in (sample.labels, real.labels) if each is not None)):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _stored(path: Path) -> tuple[float, Float64[np.ndarray, " replicates"]] | None:
    try:
        found = read_sealed(path)
    except ConfigError:
        return None
    return None if found is None else (float(found.arrays["estimate"]), found.arrays["replicates"])

"""The columns of the table: which measures there are, and how each is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from hguide.experiments.ablation.results import MeasureInfo

__all__ = ["BOUNDS", "COLUMNS", "DEFAULT", "REPEATS"]

_ALL = (
    MeasureInfo(
        "kd",
        "KD",
        False,
        3,
        "Kernel distance: unbiased squared maximum mean discrepancy, cubic polynomial kernel. Primary.",
        "landuse-features",
    ),
    MeasureInfo(
        "fd",
        "FD",
        False,
        3,
        "Frechet distance of the features' Gaussians; biased upward at small counts, as its floor is.",
        "landuse-features",
        "centred",
    ),
    MeasureInfo(
        "sfd",
        "sFD",
        False,
        3,
        "Spatial Frechet distance: of a few channels of the feature map with their positions.",
        "landuse-features",
        "centred",
    ),
    MeasureInfo(
        "precision",
        "Precision",
        True,
        3,
        "Share of the samples within reach of real pictures (3 nearest neighbours).",
        "landuse-features",
        "centred",
    ),
    MeasureInfo(
        "recall",
        "Recall",
        True,
        3,
        "Share of the real pictures within reach of samples (3 nearest neighbours).",
        "landuse-features",
        "centred",
    ),
    MeasureInfo(
        "score",
        "Score",
        True,
        2,
        "Classifier score: exp of the mean divergence of a picture's class probabilities from the mean ones.",
        "landuse-features",
    ),
    MeasureInfo(
        "accuracy",
        "Accuracy",
        True,
        3,
        "Share of the samples that the frozen classifier takes for the class that was asked for.",
        "landuse-features",
    ),
    MeasureInfo(
        "spectrum_distance",
        "Spectrum",
        False,
        3,
        "Mean over frequencies of |log(power of the samples / power of real pictures)|, luminance.",
        None,
        "centred",
    ),
    MeasureInfo(
        "kd_squeezenet",
        "KD (SqueezeNet)",
        False,
        3,
        "KD on an independent network: SqueezeNet 1.1, projected to a few fixed axes and scaled to unit variance.",
        "squeezenet",
    ),
    MeasureInfo(
        "fd_squeezenet",
        "FD (SqueezeNet)",
        False,
        3,
        "FD on an independent network: SqueezeNet 1.1, projected to a few fixed axes and scaled to unit variance.",
        "squeezenet",
        "centred",
    ),
)

COLUMNS: Mapping[str, MeasureInfo] = MappingProxyType({each.key: each for each in _ALL})
"""Key -> column, in the order of the table."""

BOUNDS: Mapping[str, tuple[float, float]] = MappingProxyType(
    dict.fromkeys(("fd", "sfd", "spectrum_distance", "fd_squeezenet"), (0.0, math.inf))
    | dict.fromkeys(("precision", "recall", "accuracy"), (0.0, 1.0))
)
"""Key -> smallest and largest value, where it has such; an unbiased KD may be below zero."""

REPEATS = ("kd_squeezenet", "fd_squeezenet")
"""Those that need `repeat_features`."""

DEFAULT = tuple(key for key in COLUMNS if key not in REPEATS)
"""Those that are measured unless a list is given."""

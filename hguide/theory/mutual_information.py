"""Estimators of mutual information, all in nats, and the shuffled control that says what independence looks like."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from hguide.errors import ConfigError

__all__ = ["gaussian", "ksg", "miller_madow", "plug_in", "shuffled"]

Estimator = Callable[[Any, Any], float]


def plug_in(x: Int[np.ndarray, " n"], y: Int[np.ndarray, " m"]) -> float:
    """I = sum_xy p(x, y) ln(p(x, y) / (p(x) p(y))) with the observed frequencies for p.

    Never negative, and biased upwards by about (cells_xy - cells_x - cells_y + 1) / 2n.

    Args:
        x: classes, any integers.
        y: classes of the same samples, m = n.

    Raises:
        ConfigError: no samples, or not as many of both.
    """
    joint = _joint(x, y)
    return _entropy(joint.sum(1)) + _entropy(joint.sum(0)) - _entropy(joint.ravel())


def miller_madow(x: Int[np.ndarray, " n"], y: Int[np.ndarray, " m"]) -> float:
    """The plug-in estimate with Miller and Madow's correction: (m - 1) / 2n added to each entropy of m seen classes.

    I_MM = I + (m_x + m_y - m_xy - 1) / 2n, which removes the first order of the bias where every class that can
    occur was seen; may be negative.

    Args:
        x: classes, any integers.
        y: classes of the same samples, m = n.

    Raises:
        ConfigError: no samples, or not as many of both.
    """
    joint = _joint(x, y)
    classes = (joint.sum(1) > 0).sum() + (joint.sum(0) > 0).sum() - (joint > 0).sum()
    return plug_in(x, y) + float(classes - 1) / (2.0 * joint.sum())


def ksg(x: Float64[np.ndarray, "n dx"], y: Float64[np.ndarray, "m dy"], neighbours: int = 3) -> float:
    """Kraskov, Stoegbauer and Grassberger's first estimator: psi(k) + psi(n) - mean(psi(n_x + 1) + psi(n_y + 1)).

    n_x and n_y count the samples strictly closer in x, in y, than the k-th neighbour in the joint space with the
    maximum norm. Columns are first brought to unit variance, and disturbed by 1e-10 of it: repeated values would be
    neighbours at distance zero. May be negative; for independent x and y its mean is zero.

    Args:
        x: features, continuous.
        y: features of the same samples, m = n.
        neighbours: k; more is less variance and more bias.

    Raises:
        ConfigError: not as many of both, or no more samples than neighbours.

    Source: arXiv cond-mat/0305641, eq. 8.
    """
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    count = len(x)
    if len(y) != count:
        raise ConfigError(f"mutual information needs pairs, got {count} and {len(y)} samples.")
    if not 1 <= neighbours < count:
        raise ConfigError(f"{neighbours} neighbours need more than {neighbours} samples, got {count}.")
    draw = np.random.default_rng(0)
    parts = [_scaled(part) + 1e-10 * draw.standard_normal(part.shape) for part in (x, y)]
    joint = np.concatenate(parts, axis=1)
    reach = cKDTree(joint).query(joint, k=[neighbours + 1], p=math.inf)[0][:, 0]
    total = 0.0
    for part in parts:
        # Strictly closer: the largest number below the distance; the sample itself is counted, as n + 1 wants.
        inside = cKDTree(part).query_ball_point(part, np.nextafter(reach, 0.0), p=math.inf, return_length=True)
        total += float(digamma(inside).mean())
    return float(digamma(neighbours) + digamma(count)) - total


def shuffled(
    estimator: Estimator, x: np.ndarray, y: np.ndarray, groups: Int[np.ndarray, " n"], rounds: int = 20, seed: int = 0
) -> Float64[np.ndarray, " rounds"]:
    """The estimates where the pairing is broken: samples of a group take y from another group, place by place.

    What is left is the estimator's bias and what both owe to the place in the group (such as borders of a picture).

    Args:
        estimator: of the mutual information of x and y.
        x: one row per sample.
        y: the same.
        groups: which picture each sample belongs to; all groups have the same number of samples, in the same order.
        rounds: number of random pairings; no group is paired with itself.
        seed: of the pairings.

    Raises:
        ConfigError: fewer than two groups, or groups that differ in size.
    """
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < 2 or len(set(sizes.tolist())) > 1:
        raise ConfigError(f"shuffling needs two groups or more of one size, got sizes {sorted(set(sizes.tolist()))}.")
    order = np.argsort(groups, kind="stable").reshape(len(names), -1)
    draw = np.random.default_rng(seed)
    found = np.empty(rounds)
    for number in range(rounds):
        # A random order read as one cycle pairs no group with itself.
        cycle = draw.permutation(len(names))
        other = np.empty_like(cycle)
        other[cycle] = np.roll(cycle, 1)
        found[number] = estimator(x[order.ravel()], y[order[other].ravel()])
    return found


def gaussian(correlation: float) -> float:
    """I = -ln(1 - rho^2) / 2 of two jointly Gaussian numbers: a known answer."""
    return -0.5 * math.log1p(-correlation * correlation)


def _joint(x: np.ndarray, y: np.ndarray) -> Int[np.ndarray, "mx my"]:
    if len(x) != len(y) or len(x) == 0:
        raise ConfigError(f"mutual information needs pairs, got {len(x)} and {len(y)} samples.")
    (rows, first), (columns, second) = (np.unique(part, return_inverse=True) for part in (x, y))
    counts = np.bincount(first * len(columns) + second, minlength=len(rows) * len(columns))
    return counts.reshape(len(rows), len(columns))


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _scaled(part: np.ndarray) -> Float64[np.ndarray, "n d"]:
    wide = np.asarray(part, dtype=np.float64)
    spread = wide.std(0)
    return (wide - wide.mean(0)) / np.where(spread > 0.0, spread, 1.0)

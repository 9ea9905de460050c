"""Limits and invariances of IGG's diagnostics, and the two limits of IGG's own rule (arXiv 2509.23876)."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from hguide.guidance import IGG
from hguide.theory.dynamics import divergence, evenness
from hguide.theory.verdict import Verdict, approximate, exact, false, vacuous

__all__ = [
    "bounds_verdict",
    "distance_from_cfg",
    "distance_from_mean",
    "evenness_under_shift",
    "igg_large_verdict",
    "igg_small_verdict",
    "peaked_signal",
    "random_signal",
    "scaled_verdict",
    "scaling_gap",
    "shift_verdict",
]


def random_signal(side: int, width: int, spread: float = 1.0, seed: int = 0) -> Float64[Tensor, "1 h w v"]:
    """A guidance signal of independent normal numbers of a standard deviation."""
    draw = torch.Generator().manual_seed(seed)
    return spread * torch.randn(1, side, side, width, generator=draw, dtype=torch.float64)


def peaked_signal(side: int, sharpness: float) -> Float64[Tensor, "1 h w 1"]:
    """Peaks exp(-sharpness d^2), d the distance from the middle token in half sides; even at 0, one token at oo."""
    line = (torch.arange(side, dtype=torch.float64) - side // 2) * (2.0 / side)
    return torch.exp(-sharpness * (line[:, None].square() + line.square()))[None, :, :, None]


def scaling_gap(factor: float, side: int = 8) -> float:
    """|E(c n) - E(n)| + |JSD(c n, m) - JSD(n, m)|: what multiplying the signal of a step by c > 0 changes."""
    signal, reference = random_signal(side, 32), random_signal(side - 2, 32, seed=1)
    even = evenness(factor * signal) - evenness(signal)
    apart = divergence(factor * signal, reference) - divergence(signal, reference)
    return float(even.abs() + apart.abs())


def evenness_under_shift(constant: float, side: int = 8) -> float:
    """Evenness of one peaked signal after a constant is added to the logits of all tokens: the same guidance."""
    return float(evenness(peaked_signal(side, 8.0) + constant))


def distance_from_cfg(spread: float, side: int = 4, width: int = 4096) -> float:
    """|g - n| / |n| of IGG's g = softmax(n n^T / sqrt(v)) n for n of independent normal numbers: 0 where IGG is CFG.

    The other tokens' weights are about exp(-sqrt(v) spread^2), so that it vanishes fast, and never quite.
    """
    signal = random_signal(side, width, spread)
    return float((IGG().grounded(signal) - signal).norm() / signal.norm())


def distance_from_mean(spread: float, side: int = 4, width: int = 4096) -> float:
    """|g - mean_j n_j| / |mean_j n_j|: 0 where IGG gives each token the mean of all."""
    signal = random_signal(side, width, spread)
    mean = signal.mean((1, 2), keepdim=True).expand_as(signal)
    return float((IGG().grounded(signal) - mean).norm() / mean.norm())


def bounds_verdict() -> Verdict:
    """Evenness is 0 for one token and 1 for equal ones, divergence 0 bits for equal maps and 1 for disjoint ones."""
    one = torch.zeros(1, 3, 4, 2, dtype=torch.float64)
    one[0, 1, 2, 1] = 5.0
    other = one.flip(1, 2)
    flat = torch.ones_like(one)
    found = [evenness(one), evenness(flat) - 1.0, divergence(one, one), divergence(one, other) - 1.0]
    return exact(max(float(each.abs()) for each in found), "largest distance from the four limits")


def scaled_verdict() -> Verdict:
    """IGG reports both diagnostics for raw and for scaled guidance; with p_i normalised the two cannot differ."""
    return vacuous(max(scaling_gap(factor) for factor in (0.1, 3.0, 40.0)), "change by a factor on the step's signal")


def shift_verdict() -> Verdict:
    """Is evenness a property of the guidance, not of the constants in its logits?"""
    return false(evenness_under_shift(1e3) - evenness_under_shift(0.0), "evenness gained by adding 1000 to all logits")


def igg_large_verdict() -> Verdict:
    """For a large signal of independent tokens IGG comes near CFG: how near?"""
    return approximate(distance_from_cfg(0.4), "|g - n| / |n| at standard deviation 0.4, 16 tokens of 4096 channels")


def igg_small_verdict() -> Verdict:
    """For a small signal IGG gives each token the mean."""
    return approximate(distance_from_mean(0.01), "|g - mean| / |mean| at standard deviation 0.01, of second order")

"""What a prior does to each frequency: the transfer matrix in the DCT domain, gain per band and spurious energy.

The ideal prior of a map that holds no more than the source's frequencies keeps them as a picture does: coefficient
(i, j) of the source becomes sqrt(HW / hw) at (i, j) of the target and nothing elsewhere. What a prior P gives instead
is split into attenuation (another gain), crosstalk (other frequencies of the low block) and spurious energy (the
frequencies above, which the source cannot hold). All numbers are relative to the ideal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product

import torch
from jaxtyping import Float64
from torch import Tensor

from hguide.grids import Grid
from hguide.priors import DSE, Nearest, SeparablePrior
from hguide.priors.dct import dct_matrix
from hguide.theory.published_grids import SCHEDULES, every_schedule
from hguide.theory.verdict import Verdict, exact, false

__all__ = [
    "PRIORS",
    "EnergySplit",
    "Leakage",
    "axis_transfers",
    "band_gain",
    "energy_split",
    "leakage",
    "literal_gain_verdict",
    "literal_low_gain",
    "natural_spectrum",
    "nearest_verdict",
    "schedule_leakage",
    "split_verdict",
    "transfer",
    "zero_high_verdict",
]

PRIORS: dict[str, str] = {
    "nearest": "nearest",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "lanczos": "lanczos",
    "area": "area",
    "DSE, literal gain": "dse",
    "DSE, amplitude gain": "dse(gain=amplitude)",
    "DSE, zero high, literal": "dse(high=zero)",
    "DSE, zero high, amplitude": "dse(high=zero, gain=amplitude)",
    "DSE in the DFT": "dse(transform=dft, gain=amplitude)",
    "DSE in haar wavelets": "dse(transform=haar)",
}
"""Name in figures -> text form of the priors that are compared."""


def axis_transfers(prior: SeparablePrior, source: Grid, target: Grid) -> list[tuple[Tensor, Tensor]]:
    """C_H Y C_h^T `(H, h)` and C_W X C_w^T `(W, w)` of each term Y (x) X of a prior; C the orthonormal DCT-II."""
    (to_y, to_x), (from_y, from_x) = ([dct_matrix(size) for size in grid] for grid in (target, source))
    return [(to_y @ y @ from_y.T, to_x @ x @ from_x.T) for y, x in prior.factors(source, target)]


def transfer(prior: SeparablePrior, source: Grid, target: Grid) -> Float64[Tensor, "H W h w"]:
    """T = (C_H (x) C_W) P (C_h (x) C_w)^T: entry (I, J, i, j) is what coefficient (i, j) becomes at (I, J).

    A constant that is kept is T_0000 = sqrt(HW / hw), not 1, since orthonormal coefficients grow with the number of
    positions.

    Args:
        prior: P, a sum of terms that act on the two axes apart.
        source: `(h, w)`.
        target: `(H, W)`.
    """
    total = torch.zeros(*target, *source, dtype=torch.float64)
    for down, across in axis_transfers(prior, source, target):
        total += torch.einsum("Ii,Jj->IJij", down, across)
    return total


def band_gain(prior: SeparablePrior, source: Grid, target: Grid) -> Float64[Tensor, "h w"]:
    """sqrt(hw / HW) T_ijij: the factor on the amplitude of each frequency; 1 where it is kept.

    Args:
        prior: P.
        source: `(h, w)`.
        target: `(H, W)`, no smaller.
    """
    terms = axis_transfers(prior, source, target)
    own = sum((torch.outer(down.diagonal(), across.diagonal()) for down, across in terms), torch.zeros(source))
    return own * math.sqrt(source[0] * source[1] / (target[0] * target[1]))


@dataclass(frozen=True, eq=False)
class EnergySplit:
    """Squared error of each source frequency `(h, w)`, relative to what an ideal prior gives.

    Attributes:
        attenuation: (1 - gain)^2.
        crosstalk: at other frequencies of the low block.
        spurious: above the low block: images of the source's spectrum, which the source does not hold.
    """

    attenuation: Float64[Tensor, "h w"]
    crosstalk: Float64[Tensor, "h w"]
    spurious: Float64[Tensor, "h w"]

    @property
    def total(self) -> Float64[Tensor, "h w"]:
        """Their sum: by Parseval's identity the squared distance |P x - ideal x|^2 / |ideal x|^2."""
        return self.attenuation + self.crosstalk + self.spurious


def energy_split(prior: SeparablePrior, source: Grid, target: Grid) -> EnergySplit:
    """Attenuation, crosstalk and spurious energy of each source frequency.

    The energy of a column of T over a block of rows is a sum over pairs of terms of products of two axes, so that T
    itself, 4096 x 2304 at the last step of HART, is never formed.

    Args:
        prior: P.
        source: `(h, w)`.
        target: `(H, W)`, no smaller.
    """
    terms = axis_transfers(prior, source, target)
    unit = source[0] * source[1] / (target[0] * target[1])
    low, everything = torch.zeros(2, *source, dtype=torch.float64)
    for (down, across), (down_, across_) in product(terms, terms):
        y, x = down * down_, across * across_
        low = low + unit * torch.outer(y[: source[0]].sum(0), x[: source[1]].sum(0))
        everything = everything + unit * torch.outer(y.sum(0), x.sum(0))
    gain = band_gain(prior, source, target)
    # Differences of equal energies are rounding of either sign.
    crosstalk, spurious = (low - gain.square()).clamp_min(0.0), (everything - low).clamp_min(0.0)
    return EnergySplit((1.0 - gain).square(), crosstalk, spurious)


def natural_spectrum(grid: Grid) -> Float64[Tensor, "h w"]:
    """Power ~ 1 / f^2 of each DCT frequency, f in half cycles per map; the constant counts as f = 1. Sums to 1.

    The amplitude spectrum of photographs falls as about 1/f; that maps of logits do is an assumption, for weighting.
    """
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in grid)
    power = 1.0 / (rows[:, None].square() + columns.square()).clamp_min(1.0)
    return power / power.sum()


@dataclass(frozen=True)
class Leakage:
    """What a prior does to a map of a given spectrum, between two grids; each relative to the map's energy.

    Attributes:
        source: grid before.
        target: grid.
        constant: factor on a constant map.
        attenuation: see `EnergySplit`.
        crosstalk: see `EnergySplit`.
        spurious: see `EnergySplit`.
    """

    source: Grid
    target: Grid
    constant: float
    attenuation: float
    crosstalk: float
    spurious: float

    @property
    def total(self) -> float:
        """Squared distance from the ideal prior."""
        return self.attenuation + self.crosstalk + self.spurious


@lru_cache(maxsize=1024)
def leakage(prior: SeparablePrior, source: Grid, target: Grid, flat: bool = False) -> Leakage:
    """The leakage of a prior at one step.

    SSG adds beta (l - P l_prev). At a step that repeats the one before ideally, beta^2 times `total` is the energy
    that it adds all the same: the part below is coarse structure amplified, `spurious` is noise subtracted.

    Args:
        prior: P.
        source: grid before.
        target: grid, no smaller.
        flat: all frequencies with the same power, in place of `natural_spectrum`.
    """
    split = energy_split(prior, source, target)
    weights = natural_spectrum(source)
    if flat:
        weights = torch.full_like(weights, 1.0 / weights.numel())
    parts = [float((weights * part).sum()) for part in (split.attenuation, split.crosstalk, split.spurious)]
    return Leakage(source, target, float(band_gain(prior, source, target)[0, 0]), *parts)


def schedule_leakage(prior: SeparablePrior, grids: Sequence[Grid], flat: bool = False) -> list[Leakage]:
    """The leakage at every step of a schedule after the first."""
    return [leakage(prior, *pair, flat=flat) for pair in pairwise(grids)]


def literal_low_gain(source: Grid, target: Grid, beta: float) -> float:
    """1 + beta (1 - sqrt(hw / HW)): factor of SSG with the literal gain on low frequencies that the step repeats.

    With `gain="amplitude"` it is 1: they are left alone. For beta = 1 and 1x1 -> 2x2 it is 1.5: the coarse part of the
    logits is sharpened as by a temperature of 2/3.
    """
    return 1.0 + beta * (1.0 - math.sqrt(source[0] * source[1] / (target[0] * target[1])))


def split_verdict() -> Verdict:
    """Attenuation, crosstalk and spurious energy add up to the squared distance from the ideal, for every prior."""
    from hguide.guidance import parse_prior

    worst = 0.0
    for text in PRIORS.values():
        prior = parse_prior(text)
        assert isinstance(prior, SeparablePrior)
        ideal = transfer(DSE(high="zero", gain="amplitude"), (5, 6), (7, 9))
        moved = transfer(prior, (5, 6), (7, 9))
        distance = (moved - ideal).square().sum((0, 1)) * (30 / 63)
        worst = max(worst, float((energy_split(prior, (5, 6), (7, 9)).total - distance).abs().max()))
    return exact(worst, "largest difference, all priors")


def nearest_verdict() -> Verdict:
    """Nearest leaves spurious high frequencies: more than bilinear at every step of every schedule."""
    from hguide.priors import Bilinear

    margins = []
    for grids in every_schedule().values():
        pairs = zip(schedule_leakage(Nearest(), grids), schedule_leakage(Bilinear(), grids), strict=True)
        # From 1x1 both are the constant.
        margins += [near.spurious - smooth.spurious for near, smooth in list(pairs)[1:]]
    return exact(max(0.0, -min(margins)), f"shortfall; least excess {min(margins):.2g} of the energy")


def literal_gain_verdict() -> Verdict:
    """Does the literal copy leave repeated low frequencies alone?"""
    gains = [literal_low_gain(*pair, beta=1.0) for pair in pairwise(SCHEDULES["VAR-256"])]
    return false(max(gains) - 1.0, f"largest extra gain at beta = 1; least {min(gains) - 1.0:.2g}")


def zero_high_verdict() -> Verdict:
    """DSE with a zero high band and the amplitude gain is the ideal prior of a band-limited map."""
    prior = DSE(high="zero", gain="amplitude")
    totals = [each.total for grids in every_schedule().values() for each in schedule_leakage(prior, grids)]
    return exact(max(totals), "largest total leakage")

"""How near a prior comes to the exact coarse posterior, on pictures for which that posterior is known.

`hguide.theory.bottleneck_gradient` says for which prior SSG's contrast is a gradient of information: the log of
p(z | low). Here pictures are Gaussian with independent DCT coefficients, so that the low band settles the mean of each
pixel and leaves a known variance; a token reads its pixel with noise; the step before read the low band on its own
grid. Each prior carries those logits over, and is compared with the exact posterior in the Fisher metric of the tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from hguide.grids import Grid
from hguide.guidance import parse_prior
from hguide.priors.dct import dct_matrix
from hguide.theory.fisher import mean_under
from hguide.theory.leakage import natural_spectrum
from hguide.theory.prior_order import Gain, Order, order_of, table_5_priors
from hguide.theory.published_grids import SCHEDULES
from hguide.theory.verdict import Verdict, approximate, false

__all__ = [
    "NOISES",
    "CoarseStep",
    "PosteriorGap",
    "alignment_order",
    "coarse_step",
    "dse_verdict",
    "flatness_verdict",
    "order_verdict",
    "posterior_gap",
    "posterior_of",
    "read",
]

NOISES = (0.3, 1.0)
"""Standard deviations of a token's reading, of pixels with variance 1: tokens that are sure, and vague ones."""
CODES = torch.linspace(-3.0, 3.0, 13, dtype=torch.float64, device="cpu")
TOKENS = 3000


def read(values: Float64[Tensor, "*place"], noise: float) -> Float64[Tensor, "*place v"]:
    """Logits -(x - c_v)^2 / (2 s^2) of a token that reads x with noise s, less what all codes c_v have in common."""
    return (values[..., None] * CODES - 0.5 * CODES.square()) / noise**2


def posterior_of(
    mean: Float64[Tensor, "*place"], variance: Float64[Tensor, "*place"], noise: float, nodes: int = 61
) -> Float64[Tensor, "*place v"]:
    """log p(z | low) = log E softmax(read(x)) over x ~ N(mean, variance), by Gauss-Hermite quadrature.

    On a fine and unbounded set of codes it is `read(mean)` with the noise s^2 + variance: flatter than the logits that
    were carried over, by the factor s^2 / (s^2 + variance).

    Args:
        mean: of the pixel, given the low band.
        variance: of the pixel, given the low band: that of the high band.
        noise: s.
        nodes: of the quadrature.
    """
    places, weights = np.polynomial.hermite_e.hermegauss(nodes)
    shares = (weights / weights.sum()).tolist()
    spread = variance.sqrt()
    found = torch.zeros(*mean.shape, len(CODES), dtype=torch.float64, device="cpu")
    for place, share in zip(places.tolist(), shares, strict=True):
        found += share * read(mean + place * spread, noise).softmax(-1)
    return found.log()


@dataclass(frozen=True, eq=False)
class CoarseStep:
    """Two steps of a model that reads pictures perfectly but for noise.

    Attributes:
        logits: l of the step's tokens, `(n, H, W, v)`.
        before: l of the step before, on the low band alone, `(n, h, w, v)`.
        posterior: log p(z | low), `(n, H, W, v)`.
    """

    logits: Float64[Tensor, "n H W v"]
    before: Float64[Tensor, "n h w v"]
    posterior: Float64[Tensor, "n H W v"]


@lru_cache(maxsize=32)
def coarse_step(source: Grid, target: Grid, noise: float) -> CoarseStep:
    """Pictures whose power falls as 1/f^2, of mean variance 1 per pixel, as both steps read them.

    Args:
        source: grid before, whose DCT frequencies are the low band.
        target: grid.
        noise: of a reading.
    """
    (height, width), (low_height, low_width) = target, source
    power = natural_spectrum(target) * (height * width)
    pictures = max(8, TOKENS // (height * width))
    draw = torch.Generator().manual_seed(0)
    coefficients = torch.randn(pictures, *target, generator=draw, dtype=torch.float64) * power.sqrt()
    low, above = torch.zeros_like(coefficients), power.clone()
    low[:, :low_height, :low_width] = coefficients[:, :low_height, :low_width]
    above[:low_height, :low_width] = 0.0
    down, across = dct_matrix(height), dct_matrix(width)
    whole, mean = (down.T @ each @ across for each in (coefficients, low))
    variance = (down.square().T @ above @ across.square()).expand_as(mean)
    unit = math.sqrt(low_height * low_width / (height * width))
    coarse = dct_matrix(low_height).T @ (low[:, :low_height, :low_width] * unit) @ dct_matrix(low_width)
    return CoarseStep(read(whole, noise), read(coarse, noise), posterior_of(mean, variance, noise))


@dataclass(frozen=True)
class PosteriorGap:
    """How far a prior is from the exact coarse posterior.

    Attributes:
        alignment: cosine of D = l - l_prior with the exact contrast, in the Fisher metric. Per unit of Fisher length,
            SSG raises I(z; high | low) at this share of the best rate.
        error: |D - D_exact|^2 / |D_exact|^2 in that metric.
        best_gain: factor on the prior that brings it nearest to the exact posterior.
    """

    alignment: float
    error: float
    best_gain: float


@lru_cache(maxsize=1024)
def posterior_gap(text: str, source: Grid, target: Grid, noise: float) -> PosteriorGap:
    """Compare the prior of a text form with the exact coarse posterior at one step.

    Args:
        text: text form of a linear prior.
        source: grid before.
        target: grid.
        noise: of a reading, see `NOISES`.
    """
    step = coarse_step(source, target, noise)
    carried = parse_prior(text)(step.before, target)
    given, exact = step.logits - carried, step.logits - step.posterior

    def inner(a: Tensor, b: Tensor) -> float:
        centred = a - mean_under(step.logits, a)[..., None]
        return float(mean_under(step.logits, centred * b).mean())

    size = inner(exact, exact)
    return PosteriorGap(
        alignment=inner(given, exact) / math.sqrt(inner(given, given) * size),
        error=inner(given - exact, given - exact) / size,
        best_gain=inner(carried, step.posterior) / inner(carried, carried),
    )


def alignment_order(gain: Gain, noise: float, schedule: str = "VAR-256") -> Order:
    """Table 5's priors ordered by 1 - alignment, the mean over the steps of a schedule, against their FID.

    Args:
        gain: of the two DSE rows.
        noise: of a reading.
        schedule: the table's model is VAR-256.
    """
    texts = table_5_priors(gain)
    return order_of({name: 1.0 - _mean_alignment(text, noise, SCHEDULES[schedule]) for name, text in texts.items()})


def _mean_alignment(text: str, noise: float, grids: Sequence[Grid]) -> float:
    found = [posterior_gap(text, *pair, noise).alignment for pair in pairwise(grids)]
    return sum(found) / len(found)


def dse_verdict() -> Verdict:
    """How far is the contrast of DSE, as printed, from the gradient of information?"""
    worst = max(1.0 - _mean_alignment("dse", noise, SCHEDULES["VAR-256"]) for noise in NOISES)
    return approximate(worst, "1 - cosine with the exact contrast, mean over VAR-256, the worse of two noises")


def flatness_verdict() -> Verdict:
    """Is the exact coarse posterior the map before at its own amplitude?"""
    text = "dse(high=zero, gain=amplitude)"
    gains = [posterior_gap(text, *pair, noise).best_gain for pair in pairwise(SCHEDULES["VAR-256"]) for noise in NOISES]
    return false(max(0.0, 1.0 - max(gains)), f"least attenuation that fits it best; most {1.0 - min(gains):.2g}")


def order_verdict() -> Verdict:
    """Does the alignment order table 5, as printed, for sure and for vague tokens?"""
    against = {pair for noise in NOISES for pair in alignment_order("literal", noise).against}
    pairs = ", ".join(f"{worse}/{better}" for worse, better in sorted(against))
    return false(len(against), f"of 6 pairs the other way round ({pairs})", tolerance=0.0)

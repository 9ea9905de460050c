"""What SSG does to the distribution that is sampled: entropy, divergence, and how much of it is a temperature.

The update l + beta D is an exponential tilt, q_beta ~ q exp(beta D); everything below follows from its cumulants.
"""

from __future__ import annotations

from jaxtyping import Float64
from torch import Tensor

from hguide.grids import Scale, Step
from hguide.guidance import CFG
from hguide.streams import COND, UNCOND
from hguide.theory.fisher import divergence, mean_under, variance_under
from hguide.theory.random_tokens import random_tokens
from hguide.theory.verdict import Verdict, approximate, exact

__all__ = [
    "divergence_series",
    "divergence_verdict",
    "entropy",
    "entropy_change",
    "entropy_series",
    "entropy_verdict",
    "flat_prior_temperature",
    "flat_prior_verdict",
    "guidance_scale",
    "null_prior_verdict",
    "temperature_share",
]


def entropy(logits: Float64[Tensor, "*place v"]) -> Float64[Tensor, "*place"]:
    """H(softmax(l)), in nats."""
    return -mean_under(logits, logits.log_softmax(-1))


def entropy_change(
    logits: Float64[Tensor, "*place v"], contrast: Float64[Tensor, "*place v"], beta: float
) -> Float64[Tensor, "*place"]:
    """H(q_beta) - H(q), exact.

    Args:
        logits: l.
        contrast: D = l - l_prior.
        beta: strength.
    """
    return entropy(logits + beta * contrast) - entropy(logits)


def entropy_series(
    logits: Float64[Tensor, "*place v"], contrast: Float64[Tensor, "*place v"], beta: float, order: int = 2
) -> Float64[Tensor, "*place"]:
    """H(q_beta) - H(q) to first or second order in beta:

        -beta Cov(D, log q) - beta^2 / 2 (Var(D) + E[(D - ED)^2 (log q - E log q)]).

    Moments under q. Entropy falls to first order where D agrees with log q: where the step is surer than its prior of
    what it holds likely.

    Args:
        logits: l.
        contrast: D.
        beta: strength.
        order: 1 or 2; the error is O(beta^(order + 1)).

    Source: of this project.
    """
    surprise = logits.log_softmax(-1)
    surprise = surprise - mean_under(logits, surprise)[..., None]
    centred = contrast - mean_under(logits, contrast)[..., None]
    first = -beta * mean_under(logits, centred * surprise)
    if order == 1:
        return first
    curvature = variance_under(logits, contrast) + mean_under(logits, centred.square() * surprise)
    return first - 0.5 * beta * beta * curvature


def divergence_series(
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    beta: float,
    forward: bool = True,
    order: int = 2,
) -> Float64[Tensor, "*place"]:
    """KL(q_beta || q) ~ beta^2 Var(D) / 2 + beta^3 k3 / 3; KL(q || q_beta) has k3 / 6 in its place.

    Moments under q; k3 is the third central one of D. There is no first order: the base distribution is left only
    quadratically, while its entropy changes linearly.

    Args:
        logits: l.
        contrast: D.
        beta: strength.
        forward: KL(q_beta || q), or KL(q || q_beta).
        order: 2 or 3; the error is O(beta^(order + 1)).

    Source: of this project.
    """
    second = 0.5 * beta**2 * variance_under(logits, contrast)
    if order == 2:
        return second
    centred = contrast - mean_under(logits, contrast)[..., None]
    third = mean_under(logits, centred**3)
    return second + beta**3 * third / (3.0 if forward else 6.0)


def flat_prior_temperature(beta: float, kept: float = 0.0) -> float:
    """T = 1 / (1 + beta (1 - kept)): SSG with l_prior = kept l + constant is sampling at this temperature, exactly.

    kept = 0 is a flat prior. kept = sqrt(hw / HW) is a map that does not change over space under DSE with its literal
    gain: what the step repeats is then sharpened, where `gain="amplitude"` (kept = 1) leaves it as it is.

    Args:
        beta: strength.
        kept: what the prior keeps of the logits.

    Source: of this project, from arXiv 2602.05534, eq. 8.
    """
    return 1.0 / (1.0 + beta * (1.0 - kept))


def guidance_scale(beta: float) -> float:
    """w = 1 + beta: SSG whose prior is the unconditional stream is CFG, u + w (c - u), exactly.

    Source: arXiv 2602.05534, eq. 8, with arXiv 2207.12598.
    """
    return 1.0 + beta


def temperature_share(
    logits: Float64[Tensor, "*place v"], contrast: Float64[Tensor, "*place v"]
) -> Float64[Tensor, "*place"]:
    """Corr(D, log q)^2 under q, in [0, 1]: the part of the step's Fisher length that a change of temperature explains.

    1 where D is an affine function of l: SSG is then a temperature and nothing else. 0 where D moves mass between
    tokens that are equally likely. NaN where D or l is constant.

    Source: of this project: an answer to whether the update is more than sharpening.
    """
    surprise = logits.log_softmax(-1)
    covariance = mean_under(logits, (surprise - mean_under(logits, surprise)[..., None]) * contrast)
    return covariance.square() / (variance_under(logits, contrast) * variance_under(logits, surprise))


def entropy_verdict() -> Verdict:
    """How good is the second-order change of entropy at beta = 0.1?"""
    logits, contrast = random_tokens(256, 64)
    error = entropy_series(logits, contrast, 0.1) - entropy_change(logits, contrast, 0.1)
    return approximate(float(error.abs().max()), "largest error, nats")


def divergence_verdict() -> Verdict:
    """How good is beta^2 Var(D) / 2 for the divergence from the base at beta = 0.1?"""
    logits, contrast = random_tokens(256, 64)
    exactly = divergence(logits + 0.1 * contrast, logits)
    return approximate(
        float((divergence_series(logits, contrast, 0.1) / exactly - 1.0).abs().max()), "largest relative error"
    )


def flat_prior_verdict() -> Verdict:
    """Is SSG with the prior kept l + constant sampling at `flat_prior_temperature`?"""
    logits, _ = random_tokens(64, 16)
    errors = []
    for kept in (0.0, 0.5, 13 / 16):
        guided = logits + 0.7 * (logits - (kept * logits + 3.0))
        cooled = logits / flat_prior_temperature(0.7, kept)
        errors.append((guided.softmax(-1) - cooled.softmax(-1)).abs().max())
    return exact(float(max(errors)), "largest difference of probabilities")


def null_prior_verdict() -> Verdict:
    """Is SSG whose prior is the unconditional stream CFG at w = 1 + beta?"""
    given, null = random_tokens(64, 16)
    guided = given + 0.7 * (given - null)
    streams = {COND: given.view(1, 8, 8, 16), UNCOND: null.view(1, 8, 8, 16)}
    wanted, _ = CFG(w=guidance_scale(0.7)).apply(streams, Step(1, 2, 0, Scale(1, 8, 8)), {})
    return exact(float((guided - wanted.view(64, 16)).abs().max()), "largest difference of logits")

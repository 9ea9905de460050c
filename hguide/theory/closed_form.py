"""The update of SSG as the maximum of a concave objective: its gradient, its temperature, and its reading as MAP."""

from __future__ import annotations

from jaxtyping import Float64
from torch import Tensor

from hguide.theory.random_tokens import random_tokens
from hguide.theory.verdict import Verdict, exact

__all__ = [
    "gradient",
    "log_posterior",
    "map_verdict",
    "maximiser",
    "maximiser_verdict",
    "objective",
    "posterior_mean",
    "shortfall",
    "strength_of",
]


def objective(
    guided: Float64[Tensor, "*place v"],
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    beta: float,
) -> Float64[Tensor, "*place"]:
    """J(l') = beta <l', D> - |l' - l|^2 / 2 per token, with D = l - l_prior.

    The gain is linear in l', so the trust region alone bounds the step. That <l', D> stands for the bottleneck of
    eqs. 2-5 is a choice of the paper; `hguide.theory.bottleneck_gradient` says for which prior it follows.

    Args:
        guided: l'.
        logits: l.
        contrast: D.
        beta: strength.

    Source: arXiv 2602.05534, eqs. 6-7 (stated: argmax of this), 20-21.
    """
    return beta * (guided * contrast).sum(-1) - 0.5 * (guided - logits).square().sum(-1)


def gradient(
    guided: Float64[Tensor, "*place v"],
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    beta: float,
) -> Float64[Tensor, "*place v"]:
    """dJ/dl' = beta D - (l' - l); the second derivative is -I everywhere.

    Source: arXiv 2602.05534, eq. 21, *reconstructed* from its objective.
    """
    return beta * contrast - (guided - logits)


def maximiser(
    logits: Float64[Tensor, "*place v"], contrast: Float64[Tensor, "*place v"], beta: float
) -> Float64[Tensor, "*place v"]:
    """l* = l + beta D, the only zero of the gradient and the only maximum.

    Source: arXiv 2602.05534, eqs. 8 and 22.
    """
    return logits + beta * contrast


def shortfall(
    guided: Float64[Tensor, "*place v"],
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    beta: float,
) -> Float64[Tensor, "*place"]:
    """J(l*) - J(l') = |l' - l*|^2 / 2 for every l': why the maximum is unique.

    Source: of this project, from arXiv 2602.05534, eq. 7.
    """
    return 0.5 * (guided - maximiser(logits, contrast, beta)).square().sum(-1)


def strength_of(strength: float, temperature: float = 1.0, variance: float = 1.0) -> float:
    """beta = s sigma^2 / T: the temperature of the gain and the width of the trust region are one parameter.

    argmax of s <l', D> / T - |l' - l|^2 / (2 sigma^2) is `maximiser(l, D, beta)`. The temperature of the *sampler* is
    not this one: softmax((l + beta D) / T) keeps beta.

    Args:
        strength: s.
        temperature: T > 0.
        variance: sigma^2 > 0 of the trust region.

    Source: arXiv 2602.05534 (stated for sigma = 1: beta = s / T).
    """
    return strength * variance / temperature


def log_posterior(
    guided: Float64[Tensor, "*place v"],
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    strength: float,
    temperature: float = 1.0,
    variance: float = 1.0,
) -> Float64[Tensor, "*place"]:
    """log N(l'; l, sigma^2 I) + s <l', D> / T up to a constant: the objective as prior and likelihood.

    The likelihood exp(s <l', D> / T) is no density in D, only a tilt; the posterior is a Gaussian, and its mode its
    mean. So the MAP reading renames the objective: it adds no statement beyond it.

    Source: arXiv 2602.05534, appendix C.3, *reconstructed*.
    """
    gain = (guided * contrast).sum(-1) * (strength / temperature)
    return gain - (guided - logits).square().sum(-1) / (2.0 * variance)


def posterior_mean(
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    strength: float,
    temperature: float = 1.0,
    variance: float = 1.0,
) -> Float64[Tensor, "*place v"]:
    """E[l'] = l + (s sigma^2 / T) D under `log_posterior`; its covariance is sigma^2 I.

    Source: arXiv 2602.05534, appendix C.3, *reconstructed*.
    """
    return maximiser(logits, contrast, strength_of(strength, temperature, variance))


def maximiser_verdict() -> Verdict:
    """Does every other l' fall short of l + beta D by half its squared distance?"""
    logits, contrast = random_tokens(64, 16)
    other = random_tokens(64, 16, seed=1)[0]
    best = objective(maximiser(logits, contrast, 0.7), logits, contrast, 0.7)
    gap = best - objective(other, logits, contrast, 0.7) - shortfall(other, logits, contrast, 0.7)
    return exact(float(gap.abs().max()), "largest error of the shortfall")


def map_verdict() -> Verdict:
    """Is the posterior the Gaussian around SSG's update, so that its mode is the update?"""
    logits, contrast = random_tokens(64, 16)
    mean = posterior_mean(logits, contrast, 0.7, temperature=1.5, variance=2.0)
    other = random_tokens(64, 16, seed=1)[0]
    height = log_posterior(mean, logits, contrast, 0.7, 1.5, 2.0) - log_posterior(
        other, logits, contrast, 0.7, 1.5, 2.0
    )
    return exact(float((height - (other - mean).square().sum(-1) / 4.0).abs().max()), "largest error of the density")

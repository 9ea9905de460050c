"""From the bottleneck to logits: for which prior the contrast l - l_prior is a gradient of information."""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from hguide.theory.fisher import fisher_matrix
from hguide.theory.random_tokens import random_tokens
from hguide.theory.verdict import Verdict, exact

__all__ = [
    "coarse_log_posterior",
    "detail_information",
    "gradient_verdict",
    "information_gradient",
    "token_information",
]


def token_information(logits: Float64[Tensor, "x v"], weights: Float64[Tensor, " x"]) -> Float64[Tensor, ""]:
    """I(z; x) for p(z | x) = softmax(l(x)) and p(x) = weights, in nats."""
    log_q = logits.log_softmax(-1)
    marginal = (weights[:, None] * log_q.exp()).sum(0).log()
    return (weights[:, None] * log_q.exp() * (log_q - marginal)).sum()


def coarse_log_posterior(
    logits: Float64[Tensor, "x v"], weights: Float64[Tensor, " x"], low: Int64[Tensor, " x"]
) -> Float64[Tensor, "x v"]:
    """log p(z | low(x)) for each x: what the token would be if only the low band were known.

    Args:
        logits: l(x).
        weights: p(x) > 0.
        low: state of the low band for each x, from 0.
    """
    member = torch.nn.functional.one_hot(low).to(weights.dtype) * weights[:, None]
    posterior = (member.T @ logits.softmax(-1)) / member.sum(0)[:, None]
    return posterior.log()[low]


def detail_information(
    logits: Float64[Tensor, "x v"], weights: Float64[Tensor, " x"], low: Int64[Tensor, " x"], penalty: float = 0.0
) -> Float64[Tensor, ""]:
    """I(z; high | low) - penalty I(z; low) = I(z; x) - (1 + penalty) I(z; low), differentiable in the logits."""
    total = token_information(logits, weights)
    coarse = token_information(coarse_log_posterior(logits, weights, low), weights)
    return total - (1.0 + penalty) * coarse


def information_gradient(
    logits: Float64[Tensor, "x v"], weights: Float64[Tensor, " x"], low: Int64[Tensor, " x"], penalty: float = 0.0
) -> tuple[Float64[Tensor, "x v"], Float64[Tensor, "x v"]]:
    """Gradient of `detail_information` in the logits, and its natural gradient: p(x) F(x) D(x), and D(x).

    D = l - log p(z | low) - penalty log(p(z | low) / p(z)), up to a constant per x. At penalty 0 the natural gradient
    of the information that the token carries about the detail is SSG's contrast l - l_prior, with l_prior the exact
    coarse posterior; how near DSE comes to that posterior is the approximation of the method.

    Args:
        logits: l(x).
        weights: p(x) > 0.
        low: state of the low band for each x.
        penalty: weight of the redundancy.

    Returns:
        `(x, v)` each: the gradient, and D.

    Source: of this project; it joins the objective of arXiv 2602.05534 (eqs. 2-5) to its update (eqs. 6-8).
    """
    log_q = logits.log_softmax(-1)
    coarse = coarse_log_posterior(logits, weights, low)
    marginal = (weights[:, None] * log_q.exp()).sum(0).log()
    natural = log_q - coarse - penalty * (coarse - marginal)
    gradient = weights[:, None] * (fisher_matrix(logits) @ natural[..., None])[..., 0]
    return gradient, natural


def gradient_verdict() -> Verdict:
    """Is SSG's contrast, with the exact coarse posterior as prior, the natural gradient of I(z; high | low)?"""
    logits, _ = random_tokens(12, 6)
    weights = random_tokens(1, 12, spread=0.5, seed=1)[0][0].softmax(0)
    low = torch.arange(12, device="cpu") // 3
    leaf = logits.clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(detail_information(leaf, weights, low), leaf)
    contrast = logits.log_softmax(-1) - coarse_log_posterior(logits, weights, low)
    wanted = weights[:, None] * (fisher_matrix(logits) @ contrast[..., None])[..., 0]
    return exact(float((slope - wanted).abs().max()), "largest difference from automatic differentiation")

"""Appendix C.2: the step held by either Kullback-Leibler divergence in place of the distance of logits.

With q = softmax(l), q' = softmax(l') and beta = s / lambda per token. The gain is either the expectation <q', D> or,
as in eq. 7, linear in the logits, <l', D>.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from hguide.errors import NumericalError
from hguide.guidance.kl_trust_region import reverse_kl_optimum
from hguide.theory.fisher import divergence, mean_under, variance_under
from hguide.theory.random_tokens import random_tokens
from hguide.theory.verdict import Verdict, approximate, exact, false

__all__ = [
    "Direction",
    "additive_limit",
    "bound_verdict",
    "expected_objective",
    "expected_optimum",
    "first_step_verdict",
    "fisher_verdict",
    "forward_verdict",
    "linear_objective",
    "linear_optimum",
    "literal_forward_verdict",
    "literal_reverse_verdict",
    "natural_ascent",
    "natural_gradient",
    "penalty",
    "reverse_verdict",
]

Direction = Literal["forward", "reverse"]
"""forward: KL(q' || q); reverse: KL(q || q')."""


def penalty(
    guided: Float64[Tensor, "*place v"], logits: Float64[Tensor, "*place v"], direction: Direction
) -> Float64[Tensor, "*place"]:
    """KL(q' || q) or KL(q || q'). Either is at most |l' - l|^2 / 4, half of SSG's penalty |l' - l|^2 / 2.

    Both are Bregman divergences of the log-sum-exp, whose Hessian F is at most I / 2; to second order both are
    d^T F d / 2 with d = l' - l, and to third they differ by a sixth of the third central moment of d.

    Source: arXiv 2602.05534, appendix C.2; the bound is of this project.
    """
    return divergence(guided, logits) if direction == "forward" else divergence(logits, guided)


def expected_objective(
    guided: Float64[Tensor, "*place v"],
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    beta: float,
    direction: Direction,
) -> Float64[Tensor, "*place"]:
    """beta <q', D> - KL: the gain as the expectation of the contrast, which is bounded, so that an optimum exists.

    Source: arXiv 2602.05534, appendix C.2, *reconstructed*.
    """
    return beta * mean_under(guided, contrast) - penalty(guided, logits, direction)


def expected_optimum(
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    beta: float,
    direction: Direction,
    tolerance: float = 1e-12,
) -> Float64[Tensor, "*place v"]:
    """The maximum of `expected_objective`, unique up to a constant.

    Forward: l + beta D, SSG at any beta, without iteration. Reverse: q' = q / (nu - beta D), see
    `hguide.guidance.kl_trust_region`.
    """
    if direction == "forward":
        return logits + beta * contrast
    return reverse_kl_optimum(logits, beta * contrast, tolerance)


def natural_gradient(
    guided: Float64[Tensor, "*place v"],
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    beta: float,
    direction: Direction,
) -> Float64[Tensor, "*place v"]:
    """The gradient of `expected_objective` by the inverse of F(l'), up to a constant.

    Forward: beta D - (l' - l), which is the plain gradient of SSG's own objective (eq. 21). Reverse: beta D + q / q'.
    At l' = l both are beta D: the first step is SSG.
    """
    if direction == "forward":
        return beta * contrast - (guided - logits)
    return beta * contrast + (logits.log_softmax(-1) - guided.log_softmax(-1)).exp() - 1.0


def natural_ascent(
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    beta: float,
    direction: Direction,
    steps: int,
    rate: float = 1.0,
) -> list[Float64[Tensor, "*place v"]]:
    """The iterates l, l + rate natural gradient, ...: with rate 1 the second is SSG, in either direction.

    Args:
        logits: l, where it starts.
        contrast: D.
        beta: strength.
        direction: of the divergence.
        steps: number of steps after the start.
        rate: of a step; below 1 where the steps overshoot, as they do once nu - beta D exceeds 2.
    """
    iterates = [logits]
    for _ in range(steps):
        last = iterates[-1]
        iterates.append(last + rate * natural_gradient(last, logits, contrast, beta, direction))
    return iterates


def linear_objective(
    guided: Float64[Tensor, "*place v"],
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    beta: float,
    direction: Direction,
) -> Float64[Tensor, "*place"]:
    """beta <l', D> - KL, with D centred: the gain of eq. 7 with the penalty of C.2, taken literally.

    Without centring it is unbounded along the gauge. Forward: unbounded for every D other than 0, since along
    l' = l + r D the gain grows like r |D|^2, while KL(q' || q) <= max(-log q). Reverse: concave, with a maximum where
    beta < `additive_limit`, and unbounded beyond.

    Source: arXiv 2602.05534, appendix C.2 with eq. 7, *reconstructed*.
    """
    centred = contrast - contrast.mean(-1, keepdim=True)
    return beta * (guided * centred).sum(-1) - penalty(guided, logits, direction)


def additive_limit(
    logits: Float64[Tensor, "*place v"], contrast: Float64[Tensor, "*place v"]
) -> Float64[Tensor, "*place"]:
    """min_i q_i / -D_i over D_i < 0, D centred: the beta from which the reverse `linear_objective` has no maximum.

    As small as the smallest q: with thousands of tokens, no beta of use is below it.
    """
    centred = contrast - contrast.mean(-1, keepdim=True)
    ratio = torch.where(centred < 0.0, logits.softmax(-1) / -centred, torch.inf)
    return ratio.amin(-1)


def linear_optimum(
    logits: Float64[Tensor, "*place v"], contrast: Float64[Tensor, "*place v"], beta: float
) -> Float64[Tensor, "*place v"]:
    """log(q + beta D), D centred: the maximum of the reverse `linear_objective`, additive in the probabilities.

    Raises:
        NumericalError: beta is at or above `additive_limit` for a token, where there is none.
    """
    limit = float(additive_limit(logits, contrast).min())
    if not beta < limit:
        raise NumericalError(
            f"a gain linear in the logits under KL(q || q') has an optimum below beta = {limit:.3g} only, got "
            f"{beta:g}; use the expected gain."
        )
    centred = contrast - contrast.mean(-1, keepdim=True)
    return (logits.softmax(-1) + beta * centred).log()


def forward_verdict() -> Verdict:
    """With the expected gain, is SSG the exact optimum under KL(q' || q), and its objective's gap KL(q'' || q')?"""
    logits, contrast = random_tokens(64, 16)
    other = random_tokens(64, 16, seed=1)[0]
    best = expected_optimum(logits, contrast, 0.7, "forward")
    gap = expected_objective(best, logits, contrast, 0.7, "forward")
    gap = gap - expected_objective(other, logits, contrast, 0.7, "forward")
    return exact(float((gap - divergence(other, best)).abs().max()), "largest error of the shortfall")


def reverse_verdict() -> Verdict:
    """How far is SSG from the optimum under KL(q || q') at beta = 0.1?"""
    logits, contrast = random_tokens(256, 64)
    best = expected_optimum(logits, contrast, 0.1, "reverse").softmax(-1)
    ssg = expected_optimum(logits, contrast, 0.1, "forward").softmax(-1)
    return approximate(float((best - ssg).abs().sum(-1).max() / 2.0), "largest total variation")


def first_step_verdict() -> Verdict:
    """Is the first natural step SSG in both directions?"""
    logits, contrast = random_tokens(64, 16)
    wanted = logits + 0.7 * contrast
    directions: tuple[Direction, ...] = ("forward", "reverse")
    errors = [(natural_ascent(logits, contrast, 0.7, each, 1)[1] - wanted).abs().max() for each in directions]
    return exact(float(max(errors)), "largest difference from SSG")


def literal_forward_verdict() -> Verdict:
    """With the gain of eq. 7, is there an optimum under KL(q' || q)?"""
    logits, contrast = random_tokens(64, 16)
    values = [linear_objective(logits + far * contrast, logits, contrast, 0.1, "forward") for far in (0.1, 1e6)]
    return false(float((values[1] - values[0]).min()), "least rise of the objective from 0.1 D to 1e6 D")


def literal_reverse_verdict() -> Verdict:
    """With the gain of eq. 7, is there an optimum under KL(q || q') at beta = 0.1, for 4096 tokens of a vocabulary?"""
    limit = additive_limit(*random_tokens(64, 4096))
    return false(float(0.1 - limit.max()), f"0.1 less the largest beta with one, which is {float(limit.max()):.2g}")


def fisher_verdict() -> Verdict:
    """How far are both divergences from d^T F d / 2 for a step of 0.1 D?"""
    logits, contrast = random_tokens(256, 64)
    change = 0.1 * contrast
    quadratic = 0.5 * variance_under(logits, change)
    directions: tuple[Direction, ...] = ("forward", "reverse")
    errors = [(penalty(logits + change, logits, each) / quadratic - 1.0).abs().max() for each in directions]
    return approximate(float(max(errors)), "largest relative error")


def bound_verdict() -> Verdict:
    """Are both divergences at most |l' - l|^2 / 4?"""
    logits, contrast = random_tokens(256, 16)
    change = torch.logspace(-2, 2, 9, dtype=torch.float64, device="cpu")[:, None, None] * contrast
    directions: tuple[Direction, ...] = ("forward", "reverse")
    base, squared = logits.expand_as(change), change.square().sum(-1)
    ratio = max(float((penalty(base + change, base, each) / squared).max()) for each in directions)
    return exact(max(0.0, ratio - 0.25), f"excess over 1/4; largest ratio {ratio:.3g}")

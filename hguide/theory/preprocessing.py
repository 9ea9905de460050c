"""Guidance of logits that pass through a locally linear map before they are compared: SSG with matrices M and J."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from hguide.theory.random_tokens import random_tokens
from hguide.theory.verdict import Verdict, approximate, exact

__all__ = [
    "linearised_maximiser",
    "linearised_objective",
    "orthonormal_verdict",
    "preprocessed_objective",
    "preprocessing_verdict",
]

Map = Callable[[Tensor], Tensor]


def preprocessed_objective(
    guided: Float64[Tensor, " v"],
    logits: Float64[Tensor, " v"],
    contrast: Float64[Tensor, " m"],
    beta: float,
    preprocess: Map,
    metric: Float64[Tensor, "m m"],
) -> Float64[Tensor, ""]:
    """beta <phi(l'), M D> - |l' - l|^2 / 2: the gain read after a map phi of the logits.

    Args:
        guided: l'.
        logits: l.
        contrast: D, in the space that phi maps to.
        beta: strength.
        preprocess: phi.
        metric: M, which weighs the contrast there.

    Source: arXiv 2602.05534, the remark on locally linear preprocessing, *reconstructed*: its M and J are read as the
    weight of the contrast and the Jacobian of phi.
    """
    return beta * preprocess(guided) @ (metric @ contrast) - 0.5 * (guided - logits).square().sum()


def linearised_maximiser(
    logits: Float64[Tensor, " v"],
    contrast: Float64[Tensor, " m"],
    beta: float,
    preprocess: Map,
    metric: Float64[Tensor, "m m"],
) -> Float64[Tensor, " v"]:
    """l + beta J^T M D with J the Jacobian of phi at l.

    Exact for a linear phi, at any beta. For another one the error is O(beta^2) where phi is smooth around l. With an
    orthonormal phi, D = phi(l) - phi(l_prior) and M = I it is SSG itself: an orthonormal transform alone changes
    nothing; only a weight per band does.

    Source: see `preprocessed_objective`.
    """
    jacobian = torch.autograd.functional.jacobian(preprocess, logits)
    return logits + beta * jacobian.T @ (metric @ contrast)


def linearised_objective(
    guided: Float64[Tensor, " v"],
    logits: Float64[Tensor, " v"],
    contrast: Float64[Tensor, " m"],
    beta: float,
    preprocess: Map,
    metric: Float64[Tensor, "m m"],
) -> Float64[Tensor, ""]:
    """beta <phi(l) + J (l' - l), M D> - |l' - l|^2 / 2, whose maximum `linearised_maximiser` is.

    Source: see `preprocessed_objective`.
    """
    jacobian = torch.autograd.functional.jacobian(preprocess, logits)
    moved = preprocess(logits) + jacobian @ (guided - logits)
    return beta * moved @ (metric @ contrast) - 0.5 * (guided - logits).square().sum()


def preprocessing_verdict() -> Verdict:
    """How far is l + beta J^T M D from stationary for a curved phi, the log-softmax, at beta = 0.1?"""
    (logits,), (contrast,) = random_tokens(1, 16)
    phi, metric = _log_softmax, torch.eye(16, dtype=torch.float64, device="cpu")
    guided = linearised_maximiser(logits, contrast, 0.1, phi, metric)
    slope = torch.autograd.functional.jacobian(
        lambda moved: preprocessed_objective(moved, logits, contrast, 0.1, phi, metric), guided
    )
    return approximate(float(slope.norm() / (guided - logits).norm()), "gradient left, relative to the step")


def orthonormal_verdict() -> Verdict:
    """Does an orthonormal transform alone leave the update as it is?"""
    (logits,), (contrast,) = random_tokens(1, 16)
    transform = torch.linalg.qr(random_tokens(16, 16, seed=1)[0])[0]
    metric = torch.eye(16, dtype=torch.float64, device="cpu")
    guided = linearised_maximiser(logits, transform @ contrast, 0.7, transform.matmul, metric)
    return exact(float((guided - logits - 0.7 * contrast).abs().max()), "largest difference from SSG")


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1)

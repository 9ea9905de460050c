"""Appendix C.1: the gradient of the expected contrast at the base logits, as printed and as it is."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from hguide.theory.fisher import divergence, fisher_matrix, mean_under
from hguide.theory.random_tokens import random_tokens
from hguide.theory.verdict import Verdict, exact, false

__all__ = [
    "alignment",
    "anchored_gradient",
    "anchored_natural_gradient",
    "anchored_objective",
    "anchored_verdict",
    "contrastive_gradient",
    "contrastive_objective",
    "printed_gradient",
    "printed_verdict",
]


def contrastive_objective(
    guided: Float64[Tensor, "*place v"],
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    strength: float,
    temperature: float = 1.0,
) -> Float64[Tensor, "*place"]:
    """<q', l + s D> with q' = softmax(l' / T): expected log-likelihood plus s times the expected contrast.

    Its supremum puts all mass on the largest entry of l + s D: without a term that holds q' it has no maximum.

    Args:
        guided: l'.
        logits: l.
        contrast: D.
        strength: s.
        temperature: T > 0.

    Source: arXiv 2602.05534, appendix C.1, *reconstructed* from the gradient.
    """
    return mean_under(guided / temperature, logits + strength * contrast)


def contrastive_gradient(
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    strength: float,
    temperature: float = 1.0,
) -> Float64[Tensor, "*place v"]:
    """(1/T) (diag q - q q^T) (l + s D): the gradient of `contrastive_objective` at l' = l, q = softmax(l / T).

    It differs from `printed_gradient` twice: by the Fisher matrix, and by the term in l, which sharpens q even where
    s = 0.

    Source: of this project, against arXiv 2602.05534, appendix C.1.
    """
    return _through_softmax(logits, logits + strength * contrast, temperature)


def printed_gradient(
    contrast: Float64[Tensor, "*place v"], strength: float, temperature: float = 1.0
) -> Float64[Tensor, "*place v"]:
    """s D / T: what appendix C.1 prints for the gradient at l' = l. False for its objective.

    It is the gradient of the gain s <l', D> / T, linear in the logits (`hguide.theory.closed_form`), and at T = 1 the
    natural gradient of `anchored_objective`.

    Source: arXiv 2602.05534, appendix C.1.
    """
    return strength * contrast / temperature


def anchored_objective(
    guided: Float64[Tensor, "*place v"],
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    strength: float,
    temperature: float = 1.0,
) -> Float64[Tensor, "*place"]:
    """s <q', D> - KL(q' || q), q' = softmax(l' / T) and q = softmax(l / T): the repair.

    -KL(q' || q) stands for the expected log-likelihood: it adds the entropy of q', so that q itself is the optimum at
    s = 0. The maximum is l' = l + s T D, SSG.

    Source: of this project.
    """
    expected = mean_under(guided / temperature, contrast)
    return strength * expected - divergence(guided / temperature, logits / temperature)


def anchored_gradient(
    logits: Float64[Tensor, "*place v"],
    contrast: Float64[Tensor, "*place v"],
    strength: float,
    temperature: float = 1.0,
) -> Float64[Tensor, "*place v"]:
    """(s/T) (diag q - q q^T) D: the gradient of `anchored_objective` at l' = l; the term in l is gone, F is not."""
    return _through_softmax(logits, strength * contrast, temperature)


def anchored_natural_gradient(
    contrast: Float64[Tensor, "*place v"], strength: float, temperature: float = 1.0
) -> Float64[Tensor, "*place v"]:
    """s T D up to a constant: `anchored_gradient` by the inverse of the metric of l', F / T^2.

    Equal to `printed_gradient` at T = 1; at other temperatures parallel to it, T^2 times as long.
    """
    return strength * temperature * contrast


def alignment(a: Float64[Tensor, "*place v"], b: Float64[Tensor, "*place v"]) -> Float64[Tensor, "*place"]:
    """Cosine between two directions, less their constants, which the softmax does not see."""
    a, b = (each - each.mean(-1, keepdim=True) for each in (a, b))
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def _through_softmax(logits: Tensor, values: Tensor, temperature: float) -> Tensor:
    return (fisher_matrix(logits / temperature) @ values[..., None])[..., 0] / temperature


def printed_verdict() -> Verdict:
    """Is the gradient of the expected contrast at l' = l parallel to s D / T?"""
    logits, contrast = random_tokens(256, 64)
    cosine = alignment(contrastive_gradient(logits, contrast, 1.0), printed_gradient(contrast, 1.0))
    return false(1.0 - float(cosine.mean()), "1 - mean cosine with the gradient, 256 random tokens")


def anchored_verdict() -> Verdict:
    """With -KL(q' || q) in its place and T = 1, is s D the natural gradient?"""
    logits, contrast = random_tokens(64, 16)
    leaf = logits.clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(anchored_objective(leaf, logits, contrast, 0.7).sum(), leaf)
    wanted = (fisher_matrix(logits) @ printed_gradient(contrast, 0.7)[..., None])[..., 0]
    return exact(float((slope - wanted).abs().max()), "largest error of F s D")

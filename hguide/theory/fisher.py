"""The Fisher metric of a softmax: which changes of logits the distribution sees, and how much."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

__all__ = ["divergence", "fisher_matrix", "mean_under", "variance_under"]


def fisher_matrix(logits: Float64[Tensor, "*place v"]) -> Float64[Tensor, "*place v v"]:
    """F = diag q - q q^T with q = softmax(l): the Jacobian of the softmax, and its Fisher metric in logits.

    Its null space is the gauge, a constant on all logits; its largest eigenvalue is at most 1/2.
    """
    q = logits.softmax(-1)
    return torch.diag_embed(q) - q[..., :, None] * q[..., None, :]


def mean_under(logits: Float64[Tensor, "*place v"], values: Float64[Tensor, "*place v"]) -> Float64[Tensor, "*place"]:
    """E_q[values] with q = softmax(l)."""
    return (logits.softmax(-1) * values).sum(-1)


def variance_under(
    logits: Float64[Tensor, "*place v"], values: Float64[Tensor, "*place v"]
) -> Float64[Tensor, "*place"]:
    """Var_q[values] with q = softmax(l): d^T F d for a change d, twice the second-order term of either divergence."""
    centred = values - mean_under(logits, values)[..., None]
    return mean_under(logits, centred.square())


def divergence(of: Float64[Tensor, "*place v"], base: Float64[Tensor, "*place v"]) -> Float64[Tensor, "*place"]:
    """KL(softmax(of) || softmax(base)), in nats; the logits are in any gauge."""
    difference = of.log_softmax(-1) - base.log_softmax(-1)
    return mean_under(of, difference)

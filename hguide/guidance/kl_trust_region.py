"""The optimum of an expected contrast under a penalty KL(q || q'): one unknown per token."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import NumericalError

__all__ = ["reverse_kl_optimum"]

_LIMIT = 100


def reverse_kl_optimum(
    logits: Float[Tensor, "*place v"], tilt: Float[Tensor, "*place v"], tolerance: float = 1e-4
) -> Float[Tensor, "*place v"]:
    """The l' that maximises <q', a> - KL(q || q'), q = softmax(l), q' = softmax(l'), for a tilt a.

    Stationarity is q'_i = q_i / (nu - a_i); nu > max a is the one number with sum q' = 1. With d_i = max a - a_i and
    nu = max a + t, the sum is S(t) = sum_i q_i / (t + d_i). 1/S is concave and grows in t, so Newton's method on it
    climbs to the root from below: t <- t + S (S - 1) / sum_i q_i / (t + d_i)^2. All in logarithms, since t may be as
    small as the smallest q.

    Args:
        logits: l, float32 or float64, finite.
        tilt: a, finite.
        tolerance: largest |sum q' - 1| of a token.

    Returns:
        l' = l + <q, a> - log(nu - a): to first order in a, l + a.

    Raises:
        NumericalError: the tolerance is not reached, since it is below rounding or the input is not finite.
    """
    log_q = logits.log_softmax(-1)
    q = log_q.exp()
    top = tilt.max(-1, keepdim=True)
    gap = top.values - tilt
    log_gap = gap.log()
    # Lower bounds of the root: no term of the sum is above 1, and the mean of 1 / x is at least 1 / mean of x.
    bound = torch.maximum((q - gap).amax(-1, keepdim=True), 1.0 - (q * gap).sum(-1, keepdim=True))
    log_t = torch.maximum(log_q.gather(-1, top.indices), bound.clamp_min(0.0).log())
    for _ in range(_LIMIT):
        log_width = torch.logaddexp(log_t, log_gap)
        guided = (log_q - log_width).exp()
        total = guided.sum(-1, keepdim=True)
        if bool(((total - 1.0).abs() <= tolerance).all()):
            return logits + (q * tilt).sum(-1, keepdim=True) - log_width
        slope = (guided * (log_t - log_width).exp()).sum(-1, keepdim=True)
        log_t = log_t + (total * (total - 1.0) / slope).clamp_min(-0.5).log1p()
    worst = float((total - 1.0).abs().max())
    raise NumericalError(
        f"the trust region in the KL divergence was to be solved to {tolerance:g}, but the probabilities of a token "
        f"sum to 1 within {worst:g} only; use finite logits and a tolerance above rounding."
    )

"""HART's `more_smooth`: a soft mix of codes in place of the drawn one."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from hguide.grids import Step
from hguide.noise import Noise
from hguide.sampling import Candidates

__all__ = ["progress", "smooth_temperature", "soft_codes"]


def progress(step: Step, hold_last: bool) -> float:
    """k / (K-1); with `hold_last` the last scale keeps (K-2) / (K-1).

    The official loop forgets to update the number before the last scale, an accident that its pictures depend on.

    Args:
        step: where in the run.
        hold_last: reproduce it.
    """
    index = min(step.index, max(step.count - 2, 0)) if hold_last else step.index
    return index / max(step.count - 1, 1)


def smooth_temperature(ratio: float) -> float:
    """tau = max(0.27 (1 - 0.95 ratio), 0.005)."""
    return max(0.27 * (1.0 - 0.95 * ratio), 0.005)


def soft_codes(
    kept: Candidates, noise: Noise, step: Step, ratio: float, codebook: Float[Tensor, "v c"]
) -> Float[Tensor, "b n c"]:
    """w @ codebook, w = softmax((z (1 + ratio) + g) / tau) over the kept candidates, g Gumbel noise.

    Args:
        kept: guided logits z after the filters.
        noise: of the run; purpose "smooth".
        step: where in the run.
        ratio: see `progress`.
        codebook: code of each token.

    Source: HART code (arXiv 2410.10812).
    """
    places: int | Tensor = kept.values.shape[1] if step.positions is None else step.positions
    channels: int | Tensor = kept.values.shape[-1] if kept.channels is None else kept.channels
    gumbel = noise.gumbel(step, "smooth", places, channels)
    weights = ((kept.values * (1.0 + ratio) + gumbel) / smooth_temperature(ratio)).softmax(-1).to(codebook.dtype)
    if kept.channels is None:
        return weights @ codebook
    dense = weights.new_zeros(*weights.shape[:-1], codebook.shape[0]).scatter_(-1, kept.channels, weights)
    return dense @ codebook

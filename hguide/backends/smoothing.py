"""VAR's `more_smooth`: a soft mix of codes in place of the drawn one; for pictures, never for measurements."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from hguide.grids import Step
from hguide.noise import Noise
from hguide.sampling import Candidates

__all__ = ["smooth_temperature", "soft_codes", "soft_weights"]


def smooth_temperature(step: Step) -> float:
    """tau_k = max(0.27 (1 - 0.95 k/(K-1)), 0.005)."""
    return max(0.27 * (1.0 - 0.95 * step.index / max(step.count - 1, 1)), 0.005)


def soft_weights(kept: Candidates, noise: Noise, step: Step) -> Float[Tensor, "b n c"]:
    """w = softmax((z (1 + k/(K-1)) + g) / tau_k) over the kept candidates, g Gumbel noise.

    Source: VAR code (arXiv 2404.02905), `models/helpers.py`.
    """
    places = kept.values.shape[1] if step.positions is None else step.positions
    channels = kept.values.shape[-1] if kept.channels is None else kept.channels
    gumbel = noise.gumbel(step, "smooth", places, channels)
    ratio = step.index / max(step.count - 1, 1)
    return ((kept.values * (1.0 + ratio) + gumbel) / smooth_temperature(step)).softmax(-1)


def soft_codes(kept: Candidates, noise: Noise, step: Step, codebook: Float[Tensor, "v c"]) -> Float[Tensor, "b c h w"]:
    """The codes mixed by `soft_weights`, on the full map of the step."""
    weights = soft_weights(kept, noise, step).to(codebook.dtype)
    if kept.channels is None:
        codes = weights @ codebook
    else:
        dense = weights.new_zeros(*weights.shape[:-1], codebook.shape[0]).scatter_(-1, kept.channels, weights)
        codes = dense @ codebook
    return codes.transpose(1, 2).unflatten(2, step.grid)

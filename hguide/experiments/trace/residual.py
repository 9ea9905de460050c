"""The semantic residual of a step: what it says beyond the step before, by band of spatial frequency."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import ConfigError
from hguide.generate import StepRecord
from hguide.generator import Binary, Categorical
from hguide.priors import LowPass

__all__ = ["band_energies", "band_names", "centred", "check_edges", "mixed_logits", "token_energy"]


def mixed_logits(record: StepRecord) -> Float[Tensor, "b *place v"]:
    """l_k, the map that SSG receives: the weighted sum of the streams, before the extrapolation; float32.

    Of a guidance that is not linear the weights are its linear shadow.
    """
    terms = [weight * record.predictions[stream].float() for stream, weight in record.weights.items()]
    return torch.stack(terms).sum(0)


def centred(logits: Float[Tensor, "*place v"], channels: Categorical | Binary) -> Float[Tensor, "*place v"]:
    """Logits less their mean over the channels, since they are defined up to a constant per token; bits as they are."""
    return logits if isinstance(channels, Binary) else logits - logits.mean(-1, keepdim=True)


def token_energy(values: Float[Tensor, "b *place v"]) -> Float[Tensor, " b"]:
    """Mean over the tokens of the squared norm over the channels."""
    return values.square().sum(-1).flatten(1).mean(1)


def band_energies(residual: Float[Tensor, "b h w v"], edges: Sequence[float]) -> Float[Tensor, "b bands"]:
    """`token_energy` of the residual in each band of its orthonormal DCT, the lowest first; they sum to the whole.

    The band below the edge e holds the first ceil(e n) frequencies of an axis of n, as in `Family` and `LowPass`, so
    that at 1x1 all lies in the lowest.

    Args:
        residual: l_k - P l_{k-1}.
        edges: between the bands, as parts of the Nyquist frequency in (0, 1), ascending.
    """
    grid = (residual.shape[1], residual.shape[2])
    lows = [torch.zeros_like(residual), *(LowPass(edge)(residual, grid) for edge in edges), residual]
    return torch.stack([token_energy(high - low) for low, high in itertools.pairwise(lows)], dim=1)


def band_names(edges: Sequence[float]) -> list[str]:
    """The bands in words, for legends: "0 to 0.25", ..."""
    return [f"{low:g} to {high:g}" for low, high in itertools.pairwise([0.0, *edges, 1.0])]


def check_edges(edges: Sequence[float]) -> tuple[float, ...]:
    """The edges as numbers.

    Raises:
        ConfigError: they do not ascend within (0, 1).
    """
    found = tuple(map(float, edges))
    if not all(map(math.isfinite, found)) or not all(a < b for a, b in itertools.pairwise([0.0, *found, 1.0])):
        raise ConfigError(f"bands are separated by numbers that ascend within (0, 1), got {list(found)}.")
    return found

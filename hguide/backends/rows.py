"""Rows of a batch that holds the samples of several streams, stream by stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["rows_of"]


def rows_of(places: Sequence[int], samples: int, device: torch.device) -> slice | Int[Tensor, " n"]:
    """The rows of some streams, in the order of `places`: a slice where they are neighbours in order, else indices.

    Args:
        places: of the streams in the batch.
        samples: rows of each.
        device: of the indices, which are made there: moving them would wait for it.
    """
    first = places[0]
    if list(places) == list(range(first, first + len(places))):
        return slice(first * samples, (first + len(places)) * samples)
    return torch.cat([torch.arange(place * samples, (place + 1) * samples, device=device) for place in places])

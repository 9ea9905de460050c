"""Rows of a batch that holds the samples of several streams, stream by stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from hguide.streams import Stream

__all__ = ["condition_rows", "rows_of"]


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


def condition_rows(streams: Sequence[Stream], given: Sequence[Tensor], null: Sequence[Tensor]) -> list[Tensor]:
    """The conditions of all rows: of the null one for null streams, of the given one for the others.

    Args:
        streams: of the batch, in order.
        given: `(b, ...)` each: what the given conditions consist of.
        null: the same of the null condition, `(b, ...)` or `(1, ...)` where it is one for all.
    """
    spread = [part.expand(len(own), *part.shape[1:]) for part, own in zip(null, given, strict=True)]
    rows = [spread if stream.condition == "null" else given for stream in streams]
    return [torch.cat(parts) for parts in zip(*rows, strict=True)]

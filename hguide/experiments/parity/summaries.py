"""Parts and sums that stand in a file for a tensor too large to record."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["summary"]

CROP_START = 96  # first row and column of every recorded crop; its size is the recorded tensor's


def summary(suffix: str, found: Tensor, recorded: Tensor) -> Tensor | None:
    """The part or sum of `found` that `suffix` names; None where it names none.

    Args:
        suffix: `lse` (log-sum-exp over the channels), `sub` (first and last position, first channels), `pool8` (means
            over 8 x 8 pixels, or another number) or `crop` (a window of pixels from row and column 96).
        found: the whole tensor.
        recorded: gives the size of the part.
    """
    match = re.fullmatch(r"([a-z]+)(\d*)", suffix)
    if match is None or match[1] not in _SUMMARIES or bool(match[2]) != (match[1] == "pool"):
        return None
    return _SUMMARIES[match[1]](found, recorded, int(match[2] or 0))


def _lse(found: Tensor, recorded: Tensor, number: int) -> Tensor:
    return found.logsumexp(-1)


def _sub(found: Tensor, recorded: Tensor, number: int) -> Tensor:
    ends = torch.stack([found[:, 0], found[:, -1]], dim=1)
    return ends[..., : recorded.shape[-1]]


def _pool(found: Tensor, recorded: Tensor, number: int) -> Tensor:
    return F.avg_pool2d(found, number)


def _crop(found: Tensor, recorded: Tensor, number: int) -> Tensor:
    rows, columns = (slice(CROP_START, CROP_START + side) for side in recorded.shape[-2:])
    return found[..., rows, columns]


_SUMMARIES: Mapping[str, Callable[[Tensor, Tensor, int], Tensor]] = MappingProxyType(
    {"lse": _lse, "sub": _sub, "pool": _pool, "crop": _crop}
)

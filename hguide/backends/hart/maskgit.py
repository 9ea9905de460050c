"""MaskGIT-style prediction of HART's last scale in several calls: which places are predicted when."""

from __future__ import annotations

import math

from jaxtyping import Int
from torch import Tensor

from hguide.errors import ConfigError

__all__ = ["positions_of", "still_masked"]


def still_masked(tokens: int, iterations: int) -> tuple[int, ...]:
    """Places still masked after each call: max(1, min(masked - 1, floor(L cos(pi/2 (s+1)/n)))), 0 after the last.

    Calls that would predict nothing are left out (more iterations than places).

    Args:
        tokens: places L of the map.
        iterations: n.

    Raises:
        ConfigError: fewer than one iteration.

    >>> still_masked(25, 3)
    (21, 12, 0)
    """
    if iterations < 1:
        raise ConfigError(f"maskgit_iterations is at least 1, got {iterations}.")
    masked, left = tokens, []
    for s in range(iterations - 1):
        after = max(1, min(masked - 1, math.floor(tokens * math.cos(math.pi / 2 * (s + 1) / iterations))))
        if after < masked:
            left.append(after)
        masked = after
    return (*left, 0)


def positions_of(order: Int[Tensor, "b l"], left: tuple[int, ...], call: int) -> Int[Tensor, "b n"]:
    """The places that a call predicts, ascending: those of `order` between what is masked after it and before it.

    Args:
        order: random order of the places per sample; the first are predicted last.
        left: from `still_masked`.
        call: from 0.
    """
    before = order.shape[1] if call == 0 else left[call - 1]
    return order[:, left[call] : before].sort(dim=1).values

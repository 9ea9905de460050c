"""A capture that works on every device."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hguide.graphs import Outcome


class Repeating:
    """Captures as a graph does: the work is done again, into the tensors of its first result."""

    def __init__(self) -> None:
        self.captures = 0

    def __call__(self, work: Callable[[], Outcome]) -> tuple[Callable[[], object], Outcome]:
        self.captures += 1
        result = work()
        result.images.fill_(torch.nan)  # A graph has computed nothing before its first replay.
        return lambda: result.images.copy_(work().images), result

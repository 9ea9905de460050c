"""The recorded tensors of one file, ticked off as they are compared."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hguide.experiments.parity.report import Comparison
from hguide.experiments.parity.summaries import summary
from hguide.experiments.parity.tolerances import tolerance_of

__all__ = ["Recording", "largest_difference"]


class Recording:
    """The tensors of a file and what became of each of them.

    Args:
        case: name of the file in the report.
        tensors: recorded tensors by name.
        tolerance: largest difference that passes, by name.
    """

    def __init__(
        self, case: str, tensors: Mapping[str, Tensor], tolerance: Callable[[str], float] = tolerance_of
    ) -> None:
        self.case = case
        self._tolerance = tolerance
        self.tensors = dict(tensors)
        self._done: dict[str, Comparison] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def compare(self, name: str, found: Tensor) -> None:
        """Compare with the tensor recorded under `name`, and with what was recorded in its place (`name_lse`, ...).

        Args:
            name: of the quantity; nothing happens where it was not recorded.
            found: the whole quantity as computed here; other shapes with the same rows are a miss.
        """
        if name in self.tensors:
            self._compare(name, found)
        for other, recorded in self.tensors.items():
            if other.startswith(f"{name}_") and other not in self._done:
                part = summary(other.removeprefix(f"{name}_"), found, recorded)
                if part is not None:
                    self._compare(other, part)

    def judge(self, name: str, wrong: int, reason: str) -> None:
        """Enter an exact quantity whose wrong places were counted elsewhere.

        Args:
            name: of the recorded tensor.
            wrong: number of places.
            reason: what is wrong with them.
        """
        self._done[name] = Comparison(self.case, name, float(wrong), 0.0, reason if wrong else "")

    def leave(self, name: str, reason: str) -> None:
        """List a tensor as not compared.

        Args:
            name: of the tensor; nothing happens where it was not recorded or was compared.
            reason: why not.
        """
        if name in self.tensors:
            self._done.setdefault(name, Comparison(self.case, name, None, 0.0, reason))

    def finish(self, reason: str) -> list[Comparison]:
        """All comparisons in the order of the scales; what is left is listed with `reason`."""
        for name in self.tensors:
            self.leave(name, reason)
        return [self._done[name] for name in sorted(self.tensors, key=_natural)]

    def _compare(self, name: str, found: Tensor) -> None:
        recorded = self.tensors[name]
        tolerance = self._tolerance(name)
        if found.shape != recorded.shape:
            reason = f"shape {tuple(found.shape)}, recorded {tuple(recorded.shape)}"
            self._done[name] = Comparison(self.case, name, math.inf, tolerance, reason)
        elif tolerance == 0.0:
            self._done[name] = Comparison(self.case, name, float((found != recorded).sum()))
        else:
            self._done[name] = Comparison(self.case, name, largest_difference(found, recorded), tolerance)


def _natural(name: str) -> list[tuple[int, str]]:
    """s2 before s10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def largest_difference(found: Tensor, recorded: Tensor) -> float:
    """max |found - recorded|: 0 where both are the same infinity, infinite where one alone is, or where one is NaN."""
    if not found.numel():
        return 0.0
    a, b = found.detach().double(), recorded.double()
    difference = torch.where(a == b, 0.0, (a - b).abs())
    return math.inf if difference.isnan().any() else float(difference.max())

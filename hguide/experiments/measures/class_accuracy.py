"""Class accuracy: how often a frozen classifier names the class that was asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from hguide.errors import ConfigError
from hguide.experiments.measures.rows import checked_rows

__all__ = ["ClassAccuracy", "class_accuracy_statistic", "hits"]


def hits(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """1 where the largest score is that of the label, else 0.

    Args:
        logits: class scores.
        labels: class indices that were asked for.

    Raises:
        ConfigError: a label is no class.
        NumericalError: NaN or infinity.
    """
    classes = logits.shape[1]
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ConfigError(f"labels are 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}.")
    return (checked_rows(logits).argmax(1) == labels.cpu()).double()


def class_accuracy_statistic(
    logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]
) -> Callable[[Float64[Tensor, " n"], Float64[Tensor, " _"]], float]:
    """Accuracy as a function of how often each row is counted; for `bootstrap`, without a reference.

    Args:
        logits: class scores.
        labels: class indices that were asked for.
    """
    right = hits(logits, labels)

    def statistic(sample_weights: Tensor, reference_weights: Tensor) -> float:
        del reference_weights
        return float(sample_weights @ right / sample_weights.sum())

    return statistic


class ClassAccuracy:
    """Share of images whose class is named right, fed batch by batch."""

    name = "class accuracy"
    higher_is_better = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.count = 0
        self._right = torch.zeros((), dtype=torch.float64)

    def update(self, logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> None:
        """Take class scores of a batch and the classes that were asked for."""
        self._right = self._right + hits(logits, labels).sum()
        self.count += len(labels)

    def merge(self, other: ClassAccuracy) -> None:
        """Take what another instance has gathered."""
        self._right = self._right + other._right
        self.count += other.count

    def compute(self) -> float:
        """Accuracy of what was gathered."""
        if not self.count:
            raise ConfigError("an accuracy needs at least one image, got none.")
        return float(self._right / self.count)

"""Classifier score: confident and varied classes, in the form of the inception score on another classifier."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hguide.errors import ConfigError
from hguide.experiments.measures.rows import check_dimensions, checked_rows

__all__ = ["ClassifierScore", "classifier_score", "classifier_score_statistic"]


def classifier_score(logits: Float[Tensor, "n classes"]) -> float:
    """exp(mean_x KL(p(y|x) || mean_x p(y|x))), from 1 to the number of classes (arXiv 1606.03498, section 4).

    Over all images at once, without splits. It knows no reference: compare it with the score of real images.

    Args:
        logits: class scores before softmax.

    Raises:
        ConfigError: no rows.
        NumericalError: NaN or infinity.
    """
    score = ClassifierScore()
    score.update(logits)
    return score.compute()


def classifier_score_statistic(
    logits: Float[Tensor, "n classes"],
) -> Callable[[Float64[Tensor, " n"], Float64[Tensor, " _"]], float]:
    """`classifier_score` as a function of how often each row is counted; for `bootstrap`, without a reference.

    Args:
        logits: class scores before softmax.
    """
    probabilities, negative_entropy = _parts(logits)

    def statistic(sample_weights: Tensor, reference_weights: Tensor) -> float:
        del reference_weights
        return _score(sample_weights @ probabilities, sample_weights @ negative_entropy, float(sample_weights.sum()))

    return statistic


def _parts(logits: Tensor) -> tuple[Float64[Tensor, "n classes"], Float64[Tensor, " n"]]:
    logs = torch.log_softmax(checked_rows(logits), 1)
    probabilities = logs.exp()
    return probabilities, (probabilities * logs).sum(1)


def _score(probabilities: Tensor, negative_entropy: Tensor, count: float) -> float:
    marginal = probabilities / count
    return float(torch.exp(negative_entropy / count - torch.special.xlogy(marginal, marginal).sum()))


class ClassifierScore:
    """`classifier_score`, fed batch by batch; keeps sums only."""

    name = "CS"
    higher_is_better = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.count = 0
        self._probabilities: Tensor | None = None
        self._negative_entropy = torch.zeros((), dtype=torch.float64)

    def update(self, logits: Float[Tensor, "n classes"]) -> None:
        """Take class scores of a batch of images."""
        probabilities, negative_entropy = _parts(logits)
        self._add(len(logits), probabilities.sum(0), negative_entropy.sum())

    def merge(self, other: ClassifierScore) -> None:
        """Take what another instance has gathered."""
        if other._probabilities is not None:
            self._add(other.count, other._probabilities, other._negative_entropy)

    def _add(self, count: int, probabilities: Tensor, negative_entropy: Tensor) -> None:
        if self._probabilities is None:
            self._probabilities = torch.zeros_like(probabilities)
        check_dimensions(len(self._probabilities), len(probabilities))
        self.count += count
        self._probabilities = self._probabilities + probabilities
        self._negative_entropy = self._negative_entropy + negative_entropy

    def compute(self) -> float:
        """Score of what was gathered."""
        if self._probabilities is None or not self.count:
            raise ConfigError("a classifier score needs at least one image, got none.")
        return _score(self._probabilities, self._negative_entropy, self.count)

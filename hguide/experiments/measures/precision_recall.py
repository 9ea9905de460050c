"""Precision and recall by nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from hguide.errors import ConfigError
from hguide.experiments.measures.pair_measure import PairMeasure
from hguide.experiments.measures.rows import Rows, checked_pair

__all__ = ["NEIGHBOURS", "PrecisionAndRecall", "PrecisionRecall", "precision_recall", "precision_recall_statistic"]

NEIGHBOURS = 3
SEARCHED_FIRST = 8
"""Neighbours, as a multiple of k, among which the k-th that is there is looked for first."""


class PrecisionAndRecall(NamedTuple):
    """Both shares, in [0, 1].

    Attributes:
        precision: share of the sample inside the reference's manifold (falls with noise and artefacts).
        recall: share of the reference inside the sample's manifold (falls with missing modes).
    """

    precision: float
    recall: float


def precision_recall(
    sample: Float[Tensor, "n d"], reference: Float[Tensor, "m e"], neighbours: int = NEIGHBOURS
) -> PrecisionAndRecall:
    """Improved precision and recall (arXiv 1904.06991, eq. 1-2).

    A point lies in the manifold of a set if, for some member of it, it is at most as far away as that member's k-th
    nearest neighbour within the set (itself not counted).

    Args:
        sample: generated rows.
        reference: real rows, as many.
        neighbours: k; published tables use 3.

    Raises:
        ConfigError: counts differ, or there are not more than k rows.
        ShapeError: dimensions differ.
        NumericalError: NaN or infinity.
    """
    x, y = _checked(sample, reference, neighbours)
    between = _distances(x, y)
    precision = (between <= _radii(y, neighbours)[None]).any(1)
    recall = (between <= _radii(x, neighbours)[:, None]).any(0)
    return PrecisionAndRecall(float(precision.double().mean()), float(recall.double().mean()))


def _checked(sample: Tensor, reference: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    if neighbours < 1:
        raise ConfigError(f"neighbours is at least 1, got {neighbours}.")
    return checked_pair(sample, reference, neighbours + 1)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # The product form |x|^2 + |y|^2 - 2 x.y loses half the digits where neighbours are near.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(rows: Tensor, neighbours: int) -> Float64[Tensor, " n"]:
    return _distances(rows, rows).fill_diagonal_(torch.inf).kthvalue(neighbours, 1).values


def precision_recall_statistic(
    sample: Float[Tensor, "n d"],
    reference: Float[Tensor, "m e"],
    which: Literal["precision", "recall"],
    neighbours: int = NEIGHBOURS,
) -> Callable[[Float64[Tensor, " n"], Float64[Tensor, " n"]], float]:
    """One of the two as a function of how often each row is counted; for `bootstrap`.

    A manifold is made of the rows that are there, each once: copies of a row are no neighbours of it. A resampled
    manifold has about 63 % of the rows, with wider balls, so its level is shifted; `kind="centred"` intervals take
    the shift out.

    Args:
        sample: generated rows.
        reference: real rows, as many.
        which: "precision" or "recall".
        neighbours: k.
    """
    x, y = _checked(sample, reference, neighbours)
    members, points = (y, x) if which == "precision" else (x, y)
    inside = _distances(points, members)
    distances, order = _distances(members, members).fill_diagonal_(torch.inf).sort(1)
    del members, points

    def statistic(sample_weights: Tensor, reference_weights: Tensor) -> float:
        weights = sample_weights if which == "precision" else reference_weights
        present = (reference_weights if which == "precision" else sample_weights) > 0
        radii = _radii_of_present(distances, order, present, neighbours)
        covered = (inside <= radii[None]).any(1).double()
        return float(weights @ covered / weights.sum())

    return statistic


def _radii_of_present(
    distances: Tensor, order: Tensor, present: Bool[Tensor, " n"], neighbours: int
) -> Float64[Tensor, " n"]:
    """Distance to the k-th nearest of the rows that are there; -1, a ball of nothing, for those that are not."""
    # Of a bootstrap's rows 63 % are there, so that the nearest few nearly always hold k of them.
    near = SEARCHED_FIRST * neighbours
    radii, found = _nearest_present(distances[:, :near], order[:, :near], present, neighbours)
    far = (~found & present).nonzero()[:, 0]
    if len(far) and near < order.shape[1]:
        radii[far] = _nearest_present(distances[far], order[far], present, neighbours)[0]
    return torch.where(present, radii, -1.0)


def _nearest_present(
    distances: Tensor, order: Tensor, present: Bool[Tensor, " n"], neighbours: int
) -> tuple[Float64[Tensor, " r"], Bool[Tensor, " r"]]:
    """Distance to the k-th neighbour that is there, of those given (nearest first), else inf; whether there is one."""
    seen = present[order].to(torch.int32).cumsum(1) >= neighbours
    place = seen.to(torch.uint8).argmax(1, keepdim=True)
    found = seen[:, -1]
    return torch.where(found, distances.gather(1, place)[:, 0], torch.inf), found


class PrecisionRecall(PairMeasure[Rows]):
    """`precision_recall`, fed batch by batch; keeps the rows.

    Args:
        neighbours: k.
    """

    name = "precision/recall"
    higher_is_better = True

    def __init__(self, neighbours: int = NEIGHBOURS) -> None:
        super().__init__(Rows(), neighbours=neighbours)

    def compute(self) -> PrecisionAndRecall:
        """Precision and recall of what was gathered."""
        self.check_counts(self._options["neighbours"] + 1)
        return precision_recall(self.sample.joined(), self.reference.joined(), **self._options)

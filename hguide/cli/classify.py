"""How well a shipped classifier recognises samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.generator import ScaleGenerator

__all__ = ["Classifier", "Recognised", "classifier_of"]


@dataclass(frozen=True)
class Recognised:
    """Class accuracy, and the mean probability that the classifier gives to the class that was asked for."""

    accuracy: float
    score: float


@dataclass(frozen=True, eq=False)
class Classifier:
    """The frozen feature network of the measures, as a classifier of one model's classes.

    Attributes:
        network: class scores of images in [0, 1].
        sha256: of its file.
    """

    network: torch.nn.Module
    sha256: str

    @torch.no_grad()
    def recognise(self, images: Float[Tensor, "b 3 H W"], labels: Sequence[int]) -> Recognised:
        """Accuracy and score of images that were asked to be of the classes `labels`."""
        scores = torch.cat([self.network(part) for part in images.float().cpu().split(64)])
        wanted = torch.tensor(labels)
        probability = scores.softmax(1).gather(1, wanted[:, None])
        return Recognised((scores.argmax(1) == wanted).float().mean().item(), probability.mean().item())


def classifier_of(generator: ScaleGenerator) -> Classifier | None:
    """The classifier of the generator's classes, or None where they are not its classes."""
    names = generator.class_names
    if not names:
        return None
    from hguide.experiments.features import load_features

    network, metadata = load_features()
    return Classifier(network, metadata["sha256"]) if tuple(metadata["classes"]) == names else None

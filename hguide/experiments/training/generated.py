"""Samples of a model in training, made by `hguide.generate` as its users will make them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hguide.errors import ConfigError
from hguide.experiments.training.evaluate import class_accuracy
from hguide.generate import generate
from hguide.generator import ScaleGenerator

__all__ = ["class_samples", "sample_accuracy", "sample_sheet"]

SAMPLED_AT_ONCE = 84


def class_samples(model: ScaleGenerator, guidance: str, per_class: int) -> Float[Tensor, "b 3 h w"]:
    """Images of every class in turn, class by class, with the seeds from 0, in float32.

    Raises:
        ConfigError: the model has no list of classes.
    """
    if model.class_count is None:
        raise ConfigError(f"{model.name} has no list of classes to sample.")
    labels = list(range(model.class_count)) * per_class
    with torch.autocast(model.device.type, enabled=False):
        return generate(model, labels, guidance, seeds=range(len(labels)), batch_size=SAMPLED_AT_ONCE)


def sample_accuracy(model: ScaleGenerator, classifier: nn.Module, guidance: str, per_class: int) -> float:
    """Share of samples whose class the classifier names right."""
    images = class_samples(model, guidance, per_class)
    return class_accuracy(classifier, images, torch.arange(model.class_count or 0).repeat(per_class))


def sample_sheet(
    model: ScaleGenerator, guidances: Sequence[str], per_class: int = 2
) -> Float[Tensor, "rows classes 3 h w"]:
    """`per_class` rows for each guidance, one column per class; the same seeds under each guidance."""
    found = [class_samples(model, guidance, per_class) for guidance in guidances]
    return torch.cat([images.unflatten(0, (per_class, -1)) for images in found])

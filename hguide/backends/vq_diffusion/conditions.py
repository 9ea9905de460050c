"""What a run of VQ-Diffusion is conditioned on: labels, or text embeddings of one length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.text import TextEncoder, text_conditions
from hguide.backends.vq_diffusion.denoiser import Denoiser
from hguide.errors import ConfigError, near_matches
from hguide.transfer import on_device

__all__ = ["class_number", "labels", "texts"]


def class_number(name: str, label: Any, classes: Sequence[str], count: int) -> int:
    """The number of a class given by number or name; `count` for None, the null class.

    Args:
        name: of the generator, for messages.
        label: to look up.
        classes: names of the classes, empty where they have none.
        count: number of classes.

    Raises:
        ConfigError: an unknown class.
    """
    if label is None:
        return count
    if isinstance(label, str):
        if label not in classes:
            raise ConfigError(f"{name}: unknown class {label!r}: {near_matches(label, classes)}")
        return list(classes).index(label)
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < count:
        raise ConfigError(f"{name}: a class is an integer from 0 to {count - 1}, got {label!r}.")
    return label


def labels(numbers: Sequence[int], denoiser: Denoiser) -> Int[Tensor, " b"]:
    """Class numbers as the class model takes them."""
    return on_device(numbers, denoiser.device)


def texts(
    name: str, conditions: Sequence[Any], encoder: TextEncoder | None, denoiser: Denoiser
) -> Float[Tensor, "b s c"]:
    """Prompts, embeddings and None (no text) as the text model takes them.

    No text is the learnt embedding where the model has one, else that of the empty prompt.

    Args:
        name: of the generator, for messages.
        conditions: one per sample.
        encoder: of prompts, or None.
        denoiser: that takes them.

    Raises:
        ConfigError: a prompt without an encoder, or an embedding of another size.
    """
    config = denoiser.config
    given = conditions if config.learned_null else ["" if each is None else each for each in conditions]
    found = text_conditions(name, given, encoder, config.text_channels)
    wrong = [each.embedding.shape[0] for each in found if each is not None and len(each.mask) != config.text_length]
    if wrong:
        raise ConfigError(f"{name}: takes texts of {config.text_length} tokens, padding included, got {wrong[0]}.")
    weight = denoiser.content_emb.emb.weight
    rows = [denoiser.empty_text_embed if each is None else each.embedding for each in found]
    return torch.stack([row.to(weight.device, weight.dtype) for row in rows])

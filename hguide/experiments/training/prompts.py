"""Class names as prompts: what the text families train on, in place of class numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hguide.backends.tiny_text import TinyTextEncoder

__all__ = ["PromptBatch", "prompt_batch"]


@dataclass(frozen=True, eq=False)
class PromptBatch:
    """Texts of a batch.

    Attributes:
        text: `(b, tokens, dim)`, padding included; gradients reach the encoder.
        mask: `(b, tokens)` True where a token is no padding.
        lengths: tokens of each sample that are no padding; they come first.
        dropped: `(b,)` samples that train the null condition, whatever that is in the family; their text is untouched.
    """

    text: Float[Tensor, "b tokens dim"]
    mask: Bool[Tensor, "b tokens"]
    dropped: Bool[Tensor, " b"]
    lengths: tuple[int, ...]


def prompt_batch(
    encoder: TinyTextEncoder, prompts: Sequence[str], labels: Int[Tensor, " b"], dropout: float
) -> PromptBatch:
    """Embeddings of each sample's prompt; every prompt is encoded once.

    Args:
        encoder: that trains along.
        prompts: of each class.
        labels: class of each sample.
        dropout: share of samples that are dropped, drawn from torch's default generator.
    """
    ids, mask = encoder.tokenise(prompts)
    lengths = mask.sum(1)[labels.cpu()].tolist()
    ids, mask = ids.to(labels.device), mask.to(labels.device)
    dropped = torch.rand(len(labels), device=labels.device) < dropout
    return PromptBatch(encoder(ids, mask)[labels], mask[labels], dropped, tuple(lengths))

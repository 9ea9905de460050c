"""The text of a run's rows, and what stands for none."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hguide.backends.hart.rope import text_positions
from hguide.backends.hart.transformer import Conditioning, HARTTransformer
from hguide.backends.text import TextEmbedding

__all__ = ["text_conditioning"]


def text_conditioning(transformer: HARTTransformer, texts: Sequence[TextEmbedding | None]) -> Conditioning:
    """What depends on the texts only.

    The null condition is zeros in place of the text, all at position 0, the first token alone not masked.

    Args:
        transformer: the network.
        texts: one per row; None is the null condition.
    """
    config, weight = transformer.config, transformer.head.weight
    shape = (len(texts), config.context_tokens)
    text = torch.zeros(*shape, config.context_dim, device=weight.device, dtype=weight.dtype)
    mask = torch.zeros(shape, dtype=torch.bool, device=weight.device)
    mask[:, 0] = True
    positions = torch.zeros(shape, dtype=torch.int64, device=weight.device)
    for row, given in enumerate(texts):
        if given is not None:
            text[row] = given.embedding.to(text)
            mask[row] = given.mask.to(mask.device)
            positions[row] = text_positions(mask[row])
    return transformer.conditioning(text, mask, positions)

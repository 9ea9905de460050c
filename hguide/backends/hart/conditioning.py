"""The text of a run's rows, and what stands for none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hguide.backends.hart.rope import text_positions
from hguide.backends.hart.transformer import Conditioning, HARTTransformer
from hguide.backends.hart.transformer_config import TransformerConfig
from hguide.backends.text import TextEmbedding, TextEncoder, text_conditions
from hguide.errors import ConfigError

__all__ = ["TextRows", "checked_texts", "conditioning_of", "text_rows"]

TextRows = tuple[Tensor, Tensor, Tensor]
"""Embeddings `(rows, t, d)` with padding, their mask `(rows, t)`, and which rows get the null condition `(rows,)`."""


def checked_texts(
    name: str, conditions: Sequence[Any], encoder: TextEncoder | None, config: TransformerConfig
) -> list[TextEmbedding | None]:
    """Prompts, embeddings and None (the null condition) as embeddings of the length that the transformer takes.

    Args:
        name: of the generator, for messages.
        conditions: one per sample.
        encoder: of prompts, or None.
        config: of the transformer.

    Raises:
        ConfigError: a prompt without an encoder, or an embedding of another size.
    """
    found = text_conditions(name, conditions, encoder, config.context_dim)
    for each in found:
        if each is not None and each.mask.shape[0] != config.context_tokens:
            raise ConfigError(
                f"{name}: takes {config.context_tokens} text tokens, padding included, got {each.mask.shape[0]}; "
                "padding is not masked here, so its number matters."
            )
    return found


def text_rows(transformer: HARTTransformer, texts: Sequence[TextEmbedding | None]) -> TextRows:
    """Texts as tensors where the transformer lies, for `conditioning_of`.

    Args:
        transformer: the network.
        texts: one per row; None is the null condition.
    """
    config, weight = transformer.config, transformer.head.weight
    shape = (len(texts), config.context_tokens)
    text = torch.zeros(*shape, config.context_dim, device=weight.device, dtype=weight.dtype)
    mask = torch.zeros(shape, dtype=torch.bool, device=weight.device)
    for row, given in enumerate(texts):
        if given is not None:
            text[row] = given.embedding.to(text)
            mask[row] = given.mask.to(mask.device)
    return text, mask, torch.tensor([given is None for given in texts], device=weight.device)


def conditioning_of(
    transformer: HARTTransformer,
    text: Float[Tensor, "rows t d"],
    mask: Bool[Tensor, "rows t"],
    null: Bool[Tensor, " rows"],
) -> Conditioning:
    """What depends on the texts only, the null condition in place of some of them.

    The null condition is zeros in place of the text, all at position 0, the first token alone not masked.

    Args:
        transformer: the network.
        text: embeddings, padding included.
        mask: True where a token is no padding.
        null: rows that get the null condition.
    """
    text = text.masked_fill(null[:, None, None], 0.0)
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    mask = torch.where(null[:, None], first, mask)
    # Behind a single first token every position is 0.
    return transformer.conditioning(text, mask, text_positions(mask))

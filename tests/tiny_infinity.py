"""Small Infinity models with random weights, and text for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.infinity import (
    Infinity,
    InfinityTokenizer,
    InfinityTransformer,
    ScaleSchedule,
    TokenizerConfig,
    TransformerConfig,
)
from hguide.backends.infinity.initialise import initialise
from hguide.backends.text import TextEmbedding

TEXT_CHANNELS = 24
SQUARE = ScaleSchedule(((1, 1), (2, 2), (3, 3), (4, 4)))


def tiny_infinity(patchify: bool = False, schedule: ScaleSchedule = SQUARE, bits: int = 4, **options: Any) -> Infinity:
    """A model whose logits depend on all of its inputs."""
    config = TransformerConfig(
        depth=2,
        width=32,
        heads=2,
        bits=bits,
        text_channels=TEXT_CHANNELS,
        text_length=12,
        text_heads=4,
        patchify=patchify,
        chunks=2,
    )
    source = torch.Generator().manual_seed(1)
    transformer = initialise(InfinityTransformer(config), source, gamma=0.5, head=4.0)
    autoencoder = AutoencoderConfig(24, (1, 2) if patchify else (1, 2, 2), 1, bits, 24, attention=False)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        tokenizer = InfinityTokenizer(TokenizerConfig(autoencoder))
    return Infinity(transformer, tokenizer, schedule, name="tiny", **options)


def text(tokens: int, seed: int = 0, padding: int = 0) -> TextEmbedding:
    """Random features of a prompt."""
    features = torch.randn(tokens + padding, TEXT_CHANNELS, generator=torch.Generator().manual_seed(seed))
    return TextEmbedding(features, torch.arange(tokens + padding) < tokens)


class LetterEncoder:
    """A text encoder in a few lines: one token per letter."""

    dim = TEXT_CHANNELS
    fingerprint = "letters"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.table = torch.randn(256, TEXT_CHANNELS, generator=torch.Generator().manual_seed(3))

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Twelve tokens, the end token included."""
        self.calls += prompts
        rows = [[*prompt.encode()[:11], 1] for prompt in prompts]
        mask = torch.stack([torch.arange(12) < len(row) for row in rows])
        tokens = torch.tensor([row + [0] * (12 - len(row)) for row in rows])
        return self.table[tokens], mask

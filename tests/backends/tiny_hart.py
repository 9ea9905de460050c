"""A HART model of a few thousand weights."""

from __future__ import annotations

from typing import Any

import torch

from hguide import Sampler
from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.hart import HART, HARTTokenizer, HARTTransformer, TokenizerConfig, TransformerConfig
from hguide.backends.text import TextEmbedding
from hguide.generate import StepRecord, generate

SIDES = (1, 2, 4)
TOKENS, DIM = 6, 12


def tiny_config(**changes: object) -> TransformerConfig:
    sizes = {"depth": 1, "width": 32, "heads": 2, "hidden": 48, "vocabulary": 24, "latent_channels": 8}
    text = {"context_tokens": TOKENS, "context_dim": DIM}
    residual = {"residual_width": 16, "residual_depth": 1, "diffusion_steps": 2}
    return TransformerConfig(**{"patch_nums": SIDES, **sizes, **text, **residual, **changes})


def tiny_hart(seed: int = 0, **changes: object) -> HART:
    """Random weights, among them those that PyTorch starts at zero or one."""
    torch.manual_seed(seed)
    autoencoder = AutoencoderConfig(channels=32, multipliers=(1, 1), blocks=1, latent_channels=8)
    tokenizer = HARTTokenizer(TokenizerConfig(autoencoder, 24, SIDES))
    transformer = HARTTransformer(tiny_config(**changes))
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        tokenizer.quantize.embedding.weight.mul_(0.5)
    return HART(transformer, tokenizer, name="tiny")


def text(seed: int, real: int = 4) -> TextEmbedding:
    """A text of `real` tokens, padded behind."""
    values = torch.randn(TOKENS, DIM, generator=torch.Generator().manual_seed(seed))
    return TextEmbedding(values, torch.arange(TOKENS) < real)


def records_of(model: HART, guidance: str, sampler: Sampler | None = None, **options: Any) -> list[StepRecord]:
    """What each step of a run on one text did."""
    records: list[StepRecord] = []
    generate(model, text(1), guidance, sampler, on_step=lambda each: records.append(each.keep()), **options)
    return records

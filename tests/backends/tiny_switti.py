"""Switti models of a few thousand weights."""

from __future__ import annotations

import torch

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.switti import Switti, SwittiTransformer, TransformerConfig
from hguide.backends.text import TextEmbedding
from hguide.backends.var import TokenizerConfig, VARTokenizer

SIDES = (1, 2, 4)
TOKENS, CHANNELS, POOLED = 5, 12, 7


def tiny_config(**changes: object) -> TransformerConfig:
    sizes = {"depth": 2, "width": 32, "heads": 2, "hidden": 24, "vocabulary": 24, "latent_channels": 8}
    text = {"text_channels": CHANNELS, "pooled_channels": POOLED, "text_tokens": TOKENS}
    return TransformerConfig(**{"patch_nums": SIDES, **sizes, **text, **changes})


def tiny_switti(seed: int = 0, **changes: object) -> Switti:
    """Random weights, among them those that PyTorch starts at zero or one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = SwittiTransformer(tiny_config(**changes))
        autoencoder = AutoencoderConfig(channels=32, multipliers=(1, 1), blocks=1, latent_channels=8)
        tokenizer = VARTokenizer(TokenizerConfig(autoencoder, 24, SIDES))
        with torch.no_grad():
            for parameter in transformer.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            transformer.crop_embed.weight.normal_()
    return Switti(transformer, tokenizer, name="tiny", null_text=text(99, real=2))


def text(seed: int, real: int = 4) -> TextEmbedding:
    """A text of `real` tokens, padded behind, and its pooled row."""
    values = torch.randn(TOKENS + 1, CHANNELS, generator=torch.Generator().manual_seed(seed))
    values[-1, POOLED:] = 0.0
    mask = torch.arange(TOKENS + 1) < real
    mask[-1] = True
    return TextEmbedding(values, mask)

"""Models of published sizes with random weights, and a condition, a guidance and a sampler for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.text import TextEmbedding
from hguide.sampling import Sampler

if TYPE_CHECKING:
    from hguide.backends.hart import HART
    from hguide.backends.infinity import Infinity
    from hguide.backends.switti import Switti
    from hguide.backends.vq_diffusion import VQDiffusion

__all__ = ["SIZES", "Sized"]


@dataclass(frozen=True, eq=False)
class Sized:
    """A model and what to run it with.

    Attributes:
        model: on the device.
        condition: of all samples.
        guidance: CFG and SSG, in the strength of the family's own examples.
        sampler: with the filters of the official examples.
    """

    model: HART | Infinity | Switti | VQDiffusion
    condition: Any
    guidance: str
    sampler: Sampler


def _hart(dtype: torch.dtype) -> Sized:
    from hguide.backends.hart import HART, HARTTokenizer, HARTTransformer, TokenizerConfig, TransformerConfig

    sides = (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64)
    config = TransformerConfig(sides, 24, 1536, 24, hidden=4096, vocabulary=4096, latent_channels=32)
    tokenizer = HARTTokenizer(TokenizerConfig(AutoencoderConfig(), config.vocabulary, sides))
    model = HART(HARTTransformer(config).to(dtype), tokenizer, name="HART 0.7B, 1024 px")
    text = _text(config.context_tokens, config.context_dim, real=40)
    return Sized(model, text, "cfg(4.5) | ssg(0.5)", Sampler(top_k=600, top_p=0.8))


def _infinity(dtype: torch.dtype) -> Sized:
    from hguide.backends.infinity import (
        Infinity,
        InfinityTokenizer,
        InfinityTransformer,
        TokenizerConfig,
        TransformerConfig,
        published_schedule,
    )

    config = TransformerConfig(32, 2048, 16, bits=32, text_channels=2048)
    transformer = InfinityTransformer(config).cast_blocks(dtype)
    tokenizer = InfinityTokenizer(TokenizerConfig())
    model = Infinity(transformer, tokenizer, published_schedule("1M"), name="Infinity 2B, 1024 px")
    return Sized(model, _text(30, config.text_channels, real=30), "cfg(w=3.0) | ssg(0.5)", Sampler())


def _switti(dtype: torch.dtype) -> Sized:
    from hguide.backends.switti import Switti, SwittiTransformer, TransformerConfig
    from hguide.backends.var import TokenizerConfig, VARTokenizer

    config = TransformerConfig()
    tokenizer = VARTokenizer(TokenizerConfig(AutoencoderConfig(), config.vocabulary, config.patch_nums))
    text = _text(config.text_tokens + 1, config.text_channels, real=config.text_tokens + 1)
    model = Switti(SwittiTransformer(config).to(dtype), tokenizer, name="Switti 2.5B, 512 px", null_text=text)
    return Sized(model, text, "cfg(w=6.0) | ssg(0.5)", Sampler(top_k=400, top_p=0.95))


def _vq_diffusion(dtype: torch.dtype) -> Sized:
    from hguide.backends.vq_diffusion import VQGAN, Denoiser, DenoiserConfig, TokenizerConfig, VQDiffusion

    config = DenoiserConfig(
        "class", 974, 100, depth=24, width=512, heads=16, grid=(16, 16), position_grid=(32, 32), classes=1000
    )
    autoencoder = AutoencoderConfig(128, latent_channels=256)
    tokenizer = VQGAN(TokenizerConfig(autoencoder, vocabulary=16384, code_channels=256, codes=config.codes))
    model = VQDiffusion(Denoiser(config).to(dtype), tokenizer, name="VQ-Diffusion 0.5B, 256 px")
    return Sized(model, 7, "cfg(w=3.0) | ssg(0.25, prior=lowpass(cutoff=0.5))", Sampler())


def _text(tokens: int, channels: int, real: int) -> TextEmbedding:
    return TextEmbedding(torch.randn(tokens, channels), torch.arange(tokens) < real)


SIZES: Mapping[str, Callable[[torch.dtype], Sized]] = MappingProxyType(
    {"hart": _hart, "infinity": _infinity, "switti": _switti, "vq-diffusion": _vq_diffusion}
)
"""By family; to be called where the default device is that of the model."""

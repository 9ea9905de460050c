"""Configurations from the description that a file of hguide's own carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.vq_diffusion.denoiser_config import DenoiserConfig
from hguide.backends.vq_diffusion.inference import Inference
from hguide.backends.vq_diffusion.tokenizer import TokenizerConfig

__all__ = ["described_denoiser", "described_inference", "described_tokenizer"]


def described_denoiser(facts: Mapping[str, Any]) -> DenoiserConfig:
    """Shape of the denoiser."""
    return DenoiserConfig(**_with_tuples(facts["denoiser"]))


def described_tokenizer(facts: Mapping[str, Any]) -> TokenizerConfig:
    """Sizes of the tokenizer."""
    autoencoder = AutoencoderConfig(**_with_tuples(facts["tokenizer"]["autoencoder"]))
    return TokenizerConfig(**{**facts["tokenizer"], "autoencoder": autoencoder})


def described_inference(facts: Mapping[str, Any]) -> Inference:
    """How the model runs by default; the plain process where the description is silent."""
    return Inference(**_with_tuples(facts.get("inference", {})))


def _with_tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}

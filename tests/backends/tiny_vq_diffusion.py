"""VQ-Diffusion models of a few thousand weights."""

from __future__ import annotations

import torch

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.text import TextEmbedding
from hguide.backends.vq_diffusion import VQGAN, Denoiser, DenoiserConfig, TokenizerConfig, VQDiffusion

CODES, STEPS, GRID = 12, 6, (3, 4)
WORDS, DIM = 5, 6


def tiny_config(condition: str = "class", **changes: object) -> DenoiserConfig:
    sizes = {"codes": CODES, "timesteps": STEPS, "depth": 1, "width": 16, "heads": 2, "mlp_ratio": 2.0}
    grids = {"grid": GRID, "position_grid": (4, 5)}
    of = {"classes": 3} if condition == "class" else {"text_channels": DIM, "text_length": WORDS}
    return DenoiserConfig(condition=condition, **{**sizes, **grids, **of, "learned_null": True, **changes})


def tiny_tokenizer_config(**changes: object) -> TokenizerConfig:
    autoencoder = AutoencoderConfig(channels=8, multipliers=(1, 2), blocks=1, latent_channels=6, groups=4)
    return TokenizerConfig(
        **{"autoencoder": autoencoder, "vocabulary": CODES, "code_channels": 5, "codes": CODES} | changes
    )


def tiny_vq_diffusion(condition: str = "class", *, seed: int = 0, assignment: str = "nearest", **changes: object):
    """Random weights, among them those that PyTorch starts at zero or one."""
    torch.manual_seed(seed)
    denoiser = Denoiser(tiny_config(condition, **changes))
    tokenizer = VQGAN(tiny_tokenizer_config(assignment=assignment))
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        # Sure enough of its codes for truncation and guidance to matter.
        denoiser.to_logits[1].weight.mul_(6.0)
    return VQDiffusion(denoiser, tokenizer, name="tiny", classes=("a", "b", "c") if condition == "class" else ())


def text(seed: int) -> TextEmbedding:
    values = torch.randn(WORDS, DIM, generator=torch.Generator().manual_seed(seed))
    return TextEmbedding(values, torch.ones(WORDS, dtype=torch.bool))

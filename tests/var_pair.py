"""Two small VAR models of one tokenizer, with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.var import VAR, TokenizerConfig, TransformerConfig, VARTokenizer, VARTransformer
from hguide.backends.var.files import save

SIDES = (1, 2, 3)


def write_pair(folder: Path) -> tuple[Path, Path]:
    """Files of a model and a smaller one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = TransformerConfig(
            patch_nums=SIDES, depth=2, width=16, heads=2, classes=3, vocabulary=16, latent_channels=4
        )
        autoencoder = AutoencoderConfig(32, (1, 1), blocks=1, latent_channels=4)
        tokenizer = VARTokenizer(TokenizerConfig(autoencoder, vocabulary=16, patch_nums=SIDES))
        strong = VAR(VARTransformer(shape), tokenizer, name="strong")
        weak = VAR(VARTransformer(replace(shape, depth=1)), tokenizer, name="weak")
        for model in (strong, weak):
            for parameter in [*model.transformer.parameters(), *model.tokenizer.parameters()]:
                parameter.data.normal_(std=0.3)
    for model in (strong, weak):
        save(model, folder / f"{model.name}.safetensors")
    return folder / "strong.safetensors", folder / "weak.safetensors"

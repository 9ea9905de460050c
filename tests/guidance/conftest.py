"""Two small VAR models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hguide.backends.var import VAR, TransformerConfig, VARTokenizer, VARTransformer
from hguide.backends.var.files import load_pair
from hguide.backends.var.initialise import initialise

GOLDEN = Path(__file__).parents[1] / "golden" / "var" / "adaln"


@pytest.fixture(scope="session")
def var() -> VAR:
    config = json.loads((GOLDEN / "config.json").read_text())
    patch_nums = tuple(config["patch_nums"])
    paths = GOLDEN / "weights_var.safetensors", GOLDEN / "weights_vae.safetensors"
    model = load_pair(*paths, patch_nums=patch_nums)
    model.name = "tiny"
    return model


@pytest.fixture(scope="session")
def deep(var: VAR) -> VAR:
    """Six blocks, plain attention, a first scale of four tokens."""
    config = TransformerConfig(
        patch_nums=(2, 3, 5), depth=6, width=32, heads=2, classes=3, vocabulary=64, latent_channels=8, l2_norm=False
    )
    transformer = initialise(VARTransformer(config), torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    for parameter in transformer.parameters():
        # The weights of a fresh network are too small for attention to matter.
        torch.nn.init.normal_(parameter, std=0.2, generator=draw)
    tokenizer = VARTokenizer(replace(var.tokenizer.config, patch_nums=(2, 3, 5)))
    return VAR(transformer, tokenizer, name="deep")

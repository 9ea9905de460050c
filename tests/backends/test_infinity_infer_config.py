"""Sizes of the published Infinity models, read off their lists of weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hguide.backends.infinity.infer_config import infer_tokenizer_config, infer_transformer_config

GOLDEN = Path(__file__).parents[1] / "golden" / "infinity"


def meta(name: str) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = json.loads((GOLDEN / f"manifest_{name}.json").read_text())
    return shapes


@pytest.mark.parametrize(
    ("name", "bits", "depth", "width", "heads", "chunks", "patchify"),
    [
        ("2b", 32, 32, 2048, 16, 8, False),
        ("8b", 14, 40, 3584, 28, 8, True),
        ("layer12_d16", 16, 12, 768, 8, 4, False),
    ],
)
def test_published_transformers_are_recognised(
    name: str, bits: int, depth: int, width: int, heads: int, chunks: int, patchify: bool
) -> None:
    config = infer_transformer_config(meta(name), bits)
    assert (config.depth, config.width, config.heads, config.chunks) == (depth, width, heads, chunks)
    assert (config.patchify, config.text_channels, config.text_length, config.levels) == (patchify, 2048, 512, 15)
    assert (config.pool_heads, config.mlp_width) == (16, 4 * width)


def test_published_tokenizers_are_recognised() -> None:
    plain, patches = infer_tokenizer_config(meta("vae_d32")), infer_tokenizer_config(meta("vae_d56_f8_14_patchify"))
    assert (plain.bits, plain.stride, plain.autoencoder.multipliers) == (32, 16, (1, 2, 4, 4, 4))
    assert (patches.bits, patches.stride, patches.autoencoder.multipliers) == (14, 8, (1, 2, 4, 4))
    assert (plain.autoencoder.channels, plain.autoencoder.blocks, plain.autoencoder.groups) == (128, 2, 32)

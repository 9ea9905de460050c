"""VQ-Diffusion's data: codes of random crops, computed once per tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.backends.vq_diffusion.tokenizer import VQGAN
from hguide.experiments.training.data import Scenes
from hguide.experiments.training.tokens import TokenSet, encoded_crops
from hguide.experiments.training.vqgan_tokenizer import codes_of

__all__ = ["code_set"]


def code_set(
    tokenizer: VQGAN, scenes: Scenes, count: int, size: int, seed: int, cache: Path | None = None, half: bool = False
) -> TokenSet:
    """Codes of `count` random crops, row by row, as `token_set` gives those of VAR.

    Args:
        tokenizer: frozen tokenizer.
        scenes: where to crop.
        count: number of crops.
        size: side of a crop.
        seed: seed of the crops.
        cache: a safetensors file to keep the codes in.
        half: whether the encoder runs in bfloat16.
    """

    def encode(images: Tensor) -> dict[str, Tensor]:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            return {"tokens": codes_of(tokenizer, images).flatten(1).to(torch.int16)}

    encoder = {"tokenizer": tokenizer_hash(tokenizer), "size": str(size)}
    device = next(tokenizer.parameters()).device
    found = encoded_crops(encode, encoder, scenes, count, size, seed, cache, device)
    return TokenSet(found["tokens"].long(), found["labels"].long())

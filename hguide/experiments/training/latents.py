"""Latents of random crops: the data that an Infinity generator trains on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.infinity.tokenizer import InfinityTokenizer
from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.experiments.training.data import Scenes
from hguide.experiments.training.tokens import encoded_crops, latent_of

__all__ = ["LatentSet", "latent_set"]


@dataclass(frozen=True, eq=False)
class LatentSet:
    """Latents of crops.

    Attributes:
        latents: `(n, d, H, W)` float16, the encoder's output.
        labels: `(n,)`.
    """

    latents: Float[Tensor, "n d H W"]
    labels: Int[Tensor, " n"]

    def rows(self, index: Int[Tensor, " b"], device: torch.device) -> LatentSet:
        """Some crops, on a device, the latents in float32."""
        return LatentSet(self.latents[index].to(device).float(), self.labels[index].to(device))


def latent_set(
    tokenizer: InfinityTokenizer,
    scenes: Scenes,
    count: int,
    size: int,
    seed: int,
    cache: Path | None = None,
    half: bool = False,
) -> LatentSet:
    """Latents of `count` random crops; 2 KB a crop for 8x8 positions of 16 bits.

    The encoder runs once a crop, and each step quantises anew: self-correction flips other bits every time, so bits
    cannot be kept, but quantising costs a thirtieth of encoding. Encoding in each step would cost a training on a CPU
    a twelfth more.

    Args:
        tokenizer: frozen tokenizer.
        scenes: where to crop.
        count: number of crops.
        size: side of a crop.
        seed: seed of the crops.
        cache: a safetensors file to keep them in.
        half: whether the encoder runs in bfloat16.
    """

    def encode(images: Tensor) -> dict[str, Tensor]:
        return {"latents": latent_of(tokenizer, images, half).contiguous().to(torch.float16)}

    encoder = {"tokenizer": tokenizer_hash(tokenizer), "kind": "latents", "size": str(size)}
    device = next(tokenizer.parameters()).device
    found = encoded_crops(encode, encoder, scenes, count, size, seed, cache, device)
    return LatentSet(found["latents"], found["labels"].long())

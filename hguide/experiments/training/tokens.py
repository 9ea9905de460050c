"""Token sequences of many random crops, computed once per tokenizer: the data that a generator trains on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.var.tokenizer import VARTokenizer, tokenizer_hash
from hguide.experiments.training.data import Scenes, random_crops, to_unit

__all__ = ["TokenSet", "encode_images", "sequence_to_maps", "token_set", "var_input"]


@dataclass(frozen=True, eq=False)
class TokenSet:
    """Tokens of crops.

    Attributes:
        tokens: `(n, L)` all scales in sequence.
        labels: `(n,)`.
    """

    tokens: Int[Tensor, "n length"]
    labels: Int[Tensor, " n"]


def token_set(
    tokenizer: VARTokenizer,
    scenes: Scenes,
    count: int,
    size: int,
    seed: int,
    cache: Path | None = None,
    half: bool = False,
) -> TokenSet:
    """Tokens of `count` random crops; read from `cache` where it was written by the same tokenizer and scenes.

    Args:
        tokenizer: frozen tokenizer.
        scenes: where to crop.
        count: number of crops.
        size: side of a crop.
        seed: seed of the crops.
        cache: a safetensors file to keep the tokens in.
        half: whether the encoder runs in bfloat16 (several times faster; a few near ties are decided otherwise).
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    identity = {"tokenizer": tokenizer_hash(tokenizer), "scenes": scenes.hash, "count": str(count), "seed": str(seed)}
    if cache is not None and cache.is_file():
        with safe_open(str(cache), "pt") as handle:
            if handle.metadata() == identity:
                return TokenSet(handle.get_tensor("tokens").long(), handle.get_tensor("labels").long())
    device = next(tokenizer.parameters()).device
    tokens, labels = [], []
    for counter in range(-(-count // 256)):
        crops, label, _ = random_crops(scenes, min(256, count - 256 * counter), size, seed, counter)
        tokens.append(encode_images(tokenizer, to_unit(crops).to(device), half).to("cpu", torch.int16))
        labels.append(label.to(torch.int16))
    kept = {"tokens": torch.cat(tokens), "labels": torch.cat(labels)}
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        save_file(kept, str(cache), identity)
    return TokenSet(kept["tokens"].long(), kept["labels"].long())


@torch.no_grad()
def encode_images(
    tokenizer: VARTokenizer, images: Float[Tensor, "b 3 h w"], half: bool = False
) -> Int[Tensor, "b length"]:
    """Tokens of all scales in sequence, of images in [0, 1]; the quantizer always runs in float32."""
    device = images.device.type
    with torch.autocast(device, torch.bfloat16, enabled=half):
        latent = tokenizer.latent((images * 2 - 1).contiguous(memory_format=torch.channels_last)).float()
    with torch.autocast(device, enabled=False):
        maps = tokenizer.quantize.encode(latent, tokenizer.config.grids)
    return torch.cat([each.flatten(1) for each in maps], 1)


def sequence_to_maps(tokenizer: VARTokenizer, tokens: Int[Tensor, "b length"]) -> list[Int[Tensor, "b _ _"]]:
    """Cut a sequence into the token map of each scale."""
    grids = tokenizer.config.grids
    parts = tokens.split([h * w for h, w in grids], dim=1)
    return [part.view(-1, h, w) for part, (h, w) in zip(parts, grids, strict=True)]


@torch.no_grad()
def var_input(tokenizer: VARTokenizer, tokens: Int[Tensor, "b length"]) -> Float[Tensor, "b positions c"]:
    """What the transformer reads at scales 1..K-1 when these tokens are given."""
    with torch.autocast(tokens.device.type, enabled=False):
        return tokenizer.quantize.var_input(sequence_to_maps(tokenizer, tokens), tokenizer.config.grids)

"""Token sequences of many random crops, computed once per tokenizer: the data that a generator trains on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.infinity.tokenizer import InfinityTokenizer
from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.backends.var.tokenizer import VARTokenizer
from hguide.experiments.training.data import Scenes, random_crops, to_unit

__all__ = ["TokenSet", "encode_images", "encoded_crops", "latent_of", "sequence_to_maps", "token_set", "var_input"]

ENCODED_AT_ONCE = 256


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

    def encode(images: Tensor) -> dict[str, Tensor]:
        return {"tokens": encode_images(tokenizer, images, half).to(torch.int16)}

    device = next(tokenizer.parameters()).device
    found = encoded_crops(encode, {"tokenizer": tokenizer_hash(tokenizer)}, scenes, count, size, seed, cache, device)
    return TokenSet(found["tokens"].long(), found["labels"].long())


def encoded_crops(
    encode: Callable[[Float[Tensor, "b 3 size size"]], dict[str, Tensor]],
    encoder: Mapping[str, str],
    scenes: Scenes,
    count: int,
    size: int,
    seed: int,
    cache: Path | None,
    device: torch.device,
) -> dict[str, Tensor]:
    """What an encoder makes of `count` random crops; read from `cache` where the same was written before.

    Args:
        encode: crops in [0, 1] on `device` to named tensors of one row each, in the types to keep.
        encoder: what else than scenes, count and seed the result depends on, for instance the tokenizer's hash.
        scenes: where to crop.
        count: number of crops.
        size: side of a crop.
        seed: seed of the crops.
        cache: a safetensors file to keep the result in.
        device: where `encode` computes.

    Returns:
        The tensors, and "labels" `(count,)` int16, on the CPU.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    identity = {**encoder, "scenes": scenes.hash, "count": str(count), "seed": str(seed)}
    if cache is not None and cache.is_file():
        with safe_open(str(cache), "pt") as handle:
            same = handle.metadata() == identity
        if same:
            return load_file(str(cache))
    scenes = scenes.to(device)
    parts: list[dict[str, Tensor]] = []
    for counter in range(-(-count // ENCODED_AT_ONCE)):
        wanted = min(ENCODED_AT_ONCE, count - ENCODED_AT_ONCE * counter)
        crops, labels, _ = random_crops(scenes, wanted, size, seed, counter)
        found = {name: value.cpu() for name, value in encode(to_unit(crops).to(device)).items()}
        parts.append(found | {"labels": labels.to(torch.int16)})
    kept = {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        save_file(kept, str(cache), identity)
    return kept


@torch.no_grad()
def encode_images(
    tokenizer: VARTokenizer, images: Float[Tensor, "b 3 h w"], half: bool = False
) -> Int[Tensor, "b length"]:
    """Tokens of all scales in sequence, of images in [0, 1]; the quantizer always runs in float32."""
    latent = latent_of(tokenizer, images, half)
    with torch.autocast(images.device.type, enabled=False):
        maps = tokenizer.quantize.encode(latent, tokenizer.config.grids)
    return torch.cat([each.flatten(1) for each in maps], 1)


@torch.no_grad()
def latent_of(
    tokenizer: VARTokenizer | InfinityTokenizer, images: Float[Tensor, "b 3 h w"], half: bool = False
) -> Float[Tensor, "b c height width"]:
    """The continuous latent of images in [0, 1], float32; `half` runs the encoder in bfloat16."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        return tokenizer.latent((images * 2 - 1).contiguous(memory_format=torch.channels_last)).float()


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

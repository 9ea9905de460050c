"""HART's data: tokens of random crops, and the continuous rest that the last scale's tokens stand for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.hart.tokenizer import HARTTokenizer
from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.experiments.training.data import Scenes
from hguide.experiments.training.parts import weights_file
from hguide.experiments.training.tokenizer import load_tokenizer
from hguide.experiments.training.tokens import encoded_crops, latent_of

__all__ = ["HybridSet", "hybrid_reconstruct", "hybrid_set", "load_hart_tokenizer"]

DECODED_AT_ONCE = 60


@dataclass(frozen=True, eq=False)
class HybridSet:
    """Tokens and rests of crops.

    Attributes:
        tokens: `(n, L)` all scales in sequence.
        rests: `(n, c, H, W)` float16: f less what all scales but the last make.
        labels: `(n,)`.
    """

    tokens: Int[Tensor, "n length"]
    rests: Float[Tensor, "n c H W"]
    labels: Int[Tensor, " n"]

    def rows(self, index: Int[Tensor, " b"], device: torch.device) -> HybridSet:
        """Some crops, on a device, the rests in float32."""
        return HybridSet(
            self.tokens[index].to(device), self.rests[index].to(device).float(), self.labels[index].to(device)
        )


def hybrid_set(
    tokenizer: HARTTokenizer,
    scenes: Scenes,
    count: int,
    size: int,
    seed: int,
    cache: Path | None = None,
    half: bool = False,
) -> HybridSet:
    """Tokens and rests of `count` random crops, as `token_set` gives tokens; 2 KB of rests a crop at 16x8x8.

    Each is computed once and read several times: encoding a batch takes about 6 % of a training step's time on a CPU.

    Args:
        tokenizer: frozen tokenizer.
        scenes: where to crop.
        count: number of crops.
        size: side of a crop.
        seed: seed of the crops.
        cache: a safetensors file to keep them in.
        half: whether the encoder runs in bfloat16.
    """

    @torch.no_grad()
    def encode(images: Tensor) -> dict[str, Tensor]:
        latent = latent_of(tokenizer, images, half)
        with torch.autocast(images.device.type, enabled=False):
            found = tokenizer.hybrid(latent, tokenizer.config.grids)
        tokens = torch.cat([each.flatten(1) for each in found.tokens], 1)
        return {"tokens": tokens.to(torch.int16), "rests": found.rest.to(torch.float16)}

    encoder = {"tokenizer": tokenizer_hash(tokenizer), "kind": "hybrid"}
    device = next(tokenizer.parameters()).device
    found = encoded_crops(encode, encoder, scenes, count, size, seed, cache, device)
    return HybridSet(found["tokens"].long(), found["rests"], found["labels"].long())


def load_hart_tokenizer(path: str | Path) -> HARTTokenizer:
    """HART's tokenizer from VAR's, whose network it shares: a bundled name, a bundle or a training's file."""
    network, _ = load_tokenizer(weights_file(path))
    tokenizer = HARTTokenizer(network.config)
    tokenizer.load_state_dict(network.state_dict())
    return tokenizer.eval().requires_grad_(False)


@torch.no_grad()
def hybrid_reconstruct(
    tokenizer: HARTTokenizer, images: Float[Tensor, "b 3 h w"], residual: bool = True
) -> Float[Tensor, "b 3 h w"]:
    """Images in [0, 1] through HART's sequence and back: what a perfect generator could reach.

    Args:
        tokenizer: any.
        images: in [0, 1].
        residual: with the continuous rest, so that nothing of the latent is lost; else its nearest codes alone, as HART
            adds them without a residual head.
    """
    parts = []
    for part in images.split(DECODED_AT_ONCE):
        latent = latent_of(tokenizer, part)
        found = tokenizer.hybrid(latent, tokenizer.config.grids)
        last = found.rest if residual else tokenizer.quantize.lookup(found.tokens[-1])
        parts.append(tokenizer.decode_latent(latent - found.rest + last).float() * 0.5 + 0.5)
    return torch.cat(parts)

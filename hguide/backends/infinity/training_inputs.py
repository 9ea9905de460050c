"""Inputs and targets of the transformer's training, with bitwise self-correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.infinity.bits import Replace, gather_patches, next_map, quantize
from hguide.grids import Grid

__all__ = ["TrainingInputs", "random_flips", "training_inputs"]


@dataclass(frozen=True, eq=False)
class TrainingInputs:
    """What a training step of the transformer takes.

    Attributes:
        inputs: of the scales from 1 on in sequence, for `InfinityTransformer.forward`.
        targets: bits of all scales in sequence.
    """

    inputs: Float[Tensor, "b m bits"]
    targets: Int[Tensor, "b l bits"]


def training_inputs(
    latent: Float[Tensor, "b d H W"], grids: Sequence[Grid], *, patchify: bool = False, flip: Replace | None = None
) -> TrainingInputs:
    """Inputs and targets from the encoder's output.

    Args:
        latent: output of the encoder.
        grids: of the scales on the tokenizer's grid.
        patchify: whether a token holds 2 x 2 tokenizer positions.
        flip: bits that are fed in place of a scale's own (`random_flips`); the targets of the scale are its own, those
            of later scales make up for the errors.

    Source: arXiv 2412.04431, section 3.3 (bitwise self-correction).
    """
    scales = quantize(latent, grids, flip)
    maps = [next_map(total, grid).permute(0, 2, 3, 1) for total, grid in zip(scales.sums, grids[1:], strict=False)]
    inputs = [_tokens(each, patchify) for each in maps]
    targets = [_tokens(each, patchify) for each in scales.bits]
    bits = targets[0].shape[2]
    empty = latent.new_zeros(latent.shape[0], 0, bits)
    return TrainingInputs(torch.cat([empty, *inputs], dim=1), torch.cat(targets, dim=1))


def random_flips(generator: torch.Generator, strength: float = 0.3, scales: int = 13, step: float = 0.01) -> Replace:
    """Flip each bit with a probability drawn per image and scale from {0, step, .., strength}.

    Args:
        generator: source of the draws, on the device of the bits.
        strength: largest probability.
        scales: how many scales, from the first, are flipped.
        step: between probabilities.

    Source: arXiv 2412.04431, section 3.3; code.
    """

    def flip(k: int, bits: Tensor) -> Tensor:
        if k >= scales:
            return bits
        levels = round(strength / step) + 1
        shape = (bits.shape[0], 1, 1, 1)
        chance = torch.randint(levels, shape, generator=generator, device=bits.device) * step
        drawn = torch.rand(bits.shape, generator=generator, device=bits.device)
        return torch.where(drawn < chance, 1 - bits, bits)

    return flip


def _tokens(maps: Tensor, patchify: bool) -> Tensor:
    """`(b, H, W, d)` -> `(b, h w, bits of a token)`."""
    return (gather_patches(maps) if patchify else maps).flatten(1, 2)

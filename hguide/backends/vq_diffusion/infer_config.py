"""Sizes of a VQ-Diffusion model read off its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.vq_diffusion.denoiser_config import DenoiserConfig
from hguide.backends.vq_diffusion.official_keys import EMPTY
from hguide.backends.vq_diffusion.tokenizer import TokenizerConfig
from hguide.errors import CheckpointError, ConfigError
from hguide.grids import Grid

__all__ = ["infer_denoiser_config", "infer_tokenizer_config"]

HEADS = 16
NULL_LABEL = 1000
IMAGENET_CODES, IMAGENET_GRID = 974, (16, 16)


def infer_denoiser_config(
    state: Mapping[str, Tensor], *, heads: int | None = None, grid: Grid | None = None, length: int | None = None
) -> DenoiserConfig:
    """Sizes of the denoiser whose weights these are.

    Heads leave no trace; all published models have 16. Nor does the grid: it is square where the length is told, 16 x
    16 for the published ImageNet models (974 codes), and that of the tables of positions otherwise. A table of 1001
    classes has a learnt null class, as officially the label 1000 is none.

    Args:
        state: by this package's names (`official_keys.denoiser_weights`).
        heads: number of heads, where it is not 16.
        grid: of the token map.
        length: tokens of a map, where the file tells it.

    Raises:
        CheckpointError: these are not the weights of such a denoiser.
    """
    kind = "a VQ-Diffusion denoiser"
    codes, width = _shape(state, "content_emb.emb.weight", 2, kind)
    rows = _shape(state, "content_emb.height_emb.weight", 2, kind)[0]
    columns = _shape(state, "content_emb.width_emb.weight", 2, kind)[0]
    is_text = "blocks.0.attn2.key.weight" in state
    table = 0 if is_text else _shape(state, "blocks.0.ln2.emb.weight", 2, kind)[0]
    learned = EMPTY in state if is_text else table == NULL_LABEL + 1
    hidden = (
        _shape(state, "blocks.0.mlp.0.weight", 2, kind)
        if is_text
        else _shape(state, "blocks.0.mlp.conv1.weight", 4, kind)
    )
    text = _shape(state, "blocks.0.attn2.key.weight", 2, kind)[1] if is_text else DenoiserConfig.text_channels
    try:
        return DenoiserConfig(
            condition="text" if is_text else "class",
            codes=codes - 1,
            timesteps=_shape(state, "blocks.0.ln1.emb.weight", 2, kind)[0],
            depth=_count(state, r"blocks\.(\d+)\."),
            width=width,
            heads=heads or HEADS,
            grid=grid or _grid(codes - 1, length, (rows, columns)),
            position_grid=(rows, columns),
            classes=table - int(learned and not is_text),
            learned_null=learned,
            text_channels=text,
            text_length=state[EMPTY].shape[0] if EMPTY in state else DenoiserConfig.text_length,
            mlp_ratio=hidden[0] / width,
        )
    except ConfigError as error:
        raise CheckpointError(f"No {kind[2:]} has these weights: {error}") from error


def _grid(codes: int, length: int | None, positions: Grid) -> Grid:
    side = math.isqrt(length) if length is not None else 0
    if side and side * side == length:
        return side, side
    return IMAGENET_GRID if codes == IMAGENET_CODES else positions


def infer_tokenizer_config(state: Mapping[str, Tensor], codes: int | None = None) -> TokenizerConfig:
    """Sizes of the tokenizer whose weights these are; all published ones have group norms of 32 groups.

    Args:
        state: by this package's names (`official_keys.tokenizer_weights`).
        codes: number of codes in use; all by default.

    Raises:
        CheckpointError: these are not the weights of a VQGAN.
    """
    kind = "a VQGAN"
    vocabulary, code_channels = _shape(state, "codebook.weight", 2, kind)
    latent = _shape(state, "decoder.conv_in.weight", 4, kind)[1]
    levels = _count(state, r"decoder\.up\.(\d+)\.")
    widths = [_shape(state, f"decoder.up.{level}.block.0.conv2.weight", 4, kind)[0] for level in range(levels)]
    encoder = "encoder.conv_in.weight" in state
    channels = _shape(state, "encoder.conv_in.weight", 4, kind)[0] if encoder else math.gcd(*widths)
    if any(width % channels for width in widths):
        raise CheckpointError(f"The widths {widths} of the decoder's levels are no multiples of {channels}.")
    try:
        return TokenizerConfig(
            autoencoder=AutoencoderConfig(
                channels=channels,
                multipliers=tuple(width // channels for width in widths),
                blocks=_count(state, r"decoder\.up\.0\.block\.(\d+)\.") - 1,
                latent_channels=latent,
            ),
            vocabulary=vocabulary,
            code_channels=code_channels,
            codes=codes or vocabulary,
            encoder=encoder,
            assignment="logits" if "assign.weight" in state else "nearest",
        )
    except ConfigError as error:
        raise CheckpointError(f"No {kind[2:]} has these weights: {error}") from error


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int, kind: str) -> torch.Size:
    if name not in state:
        first = ", ".join(list(state)[:3])
        raise CheckpointError(
            f"These are not the weights of {kind}: {name!r} is missing among {len(state)} entries ({first}, ...)."
        )
    shape = state[name].shape
    if len(shape) != dimensions:
        raise CheckpointError(f"{name!r} of {kind} has {dimensions} dimensions, found {tuple(shape)}.")
    return shape


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match.group(1) for name in state if (match := re.match(pattern, name))})

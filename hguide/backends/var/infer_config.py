"""Sizes of a VAR model read off its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.var.tokenizer import TokenizerConfig
from hguide.backends.var.transformer import TransformerConfig
from hguide.errors import CheckpointError, ConfigError

__all__ = ["infer_tokenizer_config", "infer_transformer_config"]

HEAD_CHANNELS = 64
PUBLISHED_SCHEDULES = (
    (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
)


def infer_tokenizer_config(
    state: Mapping[str, Tensor], patch_nums: tuple[int, ...] = PUBLISHED_SCHEDULES[0]
) -> TokenizerConfig:
    """Sizes of the tokenizer whose weights these are.

    The schedule leaves no trace in a tokenizer's weights (the published file serves 256 and 512 pixels), nor does the
    residual ratio, which is 0.5 in every published file.

    Args:
        state: the tokenizer's state dict.
        patch_nums: the schedule; default: the one at 256 pixels.

    Returns:
        the configuration.

    Raises:
        CheckpointError: these are not the weights of a VAR tokenizer.
    """
    kind = "a VAR tokenizer"
    channels = _shape(state, "encoder.conv_in.weight", 4, kind)[0]
    vocabulary, latent_channels = _shape(state, "quantize.embedding.weight", 2, kind)
    levels = _count(state, r"encoder\.down\.(\d+)\.")
    widths = [_shape(state, f"encoder.down.{level}.block.0.conv2.weight", 4, kind)[0] for level in range(levels)]
    if any(width % channels for width in widths):
        raise CheckpointError(f"The widths {widths} of the encoder's levels are no multiples of its first, {channels}.")
    try:
        return TokenizerConfig(
            autoencoder=AutoencoderConfig(
                channels=channels,
                multipliers=tuple(width // channels for width in widths),
                blocks=_count(state, r"encoder\.down\.0\.block\.(\d+)\."),
                latent_channels=latent_channels,
            ),
            vocabulary=vocabulary,
            patch_nums=patch_nums,
            convolutions=_count(state, r"quantize\.quant_resi\.qresi_ls\.(\d+)\."),
        )
    except ConfigError as error:
        raise CheckpointError(f"No {kind[2:]} has these weights: {error}") from error


def infer_transformer_config(
    state: Mapping[str, Tensor], patch_nums: tuple[int, ...] | None = None, heads: int | None = None
) -> TransformerConfig:
    """Sizes of the transformer whose weights these are.

    Depth, width and the rest follow from names and shapes; the schedule from the level of each position (`lvl_1L`) or,
    where the file lacks it, from its numbers of scales and of positions, which tell the published schedules apart. The
    number of heads shows in the weights of normalised attention only; otherwise heads have 64 channels, as published.

    Args:
        state: the transformer's state dict.
        patch_nums: the schedule, where the weights do not tell it.
        heads: number of heads, where the weights do not tell it.

    Returns:
        the configuration.

    Raises:
        CheckpointError: these are not the weights of a VAR transformer, or do not tell a size that was not given.
    """
    kind = "a VAR transformer"
    width = _shape(state, "pos_start", 3, kind)[2]
    vocabulary = _shape(state, "head.weight", 2, kind)[0]
    scaled = next((name for name in state if name.endswith(".attn.scale_mul_1H11")), None)
    l2_norm = scaled is not None
    if scaled is not None:
        told = _shape(state, scaled, 4, kind)[1]
        if heads not in (None, told):
            raise CheckpointError(f"The weights have {told} heads, asked for {heads}.")
        heads = told
    elif heads is None:
        heads = width // HEAD_CHANNELS
    try:
        return TransformerConfig(
            patch_nums=_schedule(state, kind, patch_nums),
            depth=_count(state, r"blocks\.(\d+)\."),
            width=width,
            heads=heads,
            classes=_shape(state, "class_emb.weight", 2, kind)[0] - 1,
            vocabulary=vocabulary,
            latent_channels=_shape(state, "word_embed.weight", 2, kind)[1],
            shared_adaln="blocks.0.ada_gss" in state,
            l2_norm=l2_norm,
            mlp_ratio=_shape(state, "blocks.0.ffn.fc1.weight", 2, kind)[0] / width,
        )
    except ConfigError as error:
        raise CheckpointError(f"No {kind[2:]} has these weights: {error}") from error


def _schedule(state: Mapping[str, Tensor], kind: str, given: tuple[int, ...] | None) -> tuple[int, ...]:
    scales = _shape(state, "lvl_embed.weight", 2, kind)[0]
    length = _shape(state, "pos_1LC", 3, kind)[1]
    if given is None:
        told = _levels(state["lvl_1L"], scales) if "lvl_1L" in state else None
        fitting = [each for each in PUBLISHED_SCHEDULES if _fits(each, scales, length)]
        given = told or (fitting[0] if fitting else None)
        if given is None:
            raise CheckpointError(
                f"The weights do not tell their schedule of {scales} scales and {length} positions: pass patch_nums."
            )
    if not _fits(given, scales, length):
        raise CheckpointError(
            f"The weights have {scales} scales and {length} positions; patch_nums {given} have {len(given)} and "
            f"{sum(side * side for side in given)}."
        )
    return given


def _fits(patch_nums: tuple[int, ...], scales: int, length: int) -> bool:
    return len(patch_nums) == scales and sum(side * side for side in patch_nums) == length


def _levels(levels: Tensor, scales: int) -> tuple[int, ...] | None:
    """Sides of the square maps whose positions bear these level numbers, None where they are no squares."""
    if levels.is_meta or levels.is_floating_point():
        return None
    counts = [int((levels == scale).sum()) for scale in range(scales)]
    sides = tuple(math.isqrt(count) for count in counts)
    ordered = bool((levels.flatten().diff() >= 0).all()) and sum(counts) == levels.numel()
    square = all(side and side * side == count for side, count in zip(sides, counts, strict=True))
    return sides if ordered and square else None


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

"""Sizes of an Infinity model read off names and shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.infinity.official_keys import chunk_sizes, tokenizer_key
from hguide.backends.infinity.tokenizer import TokenizerConfig, groups_of
from hguide.backends.infinity.transformer_config import TransformerConfig
from hguide.errors import CheckpointError, ConfigError

__all__ = ["check_family", "infer_tokenizer_config", "infer_transformer_config"]

Shapes = Mapping[str, Sequence[int]]

TRANSFORMER_KIND = "an Infinity transformer"


def check_family(shapes: Shapes) -> None:
    """Refuse what is no Infinity transformer, before anything else is asked of it.

    Args:
        shapes: official name -> shape.

    Raises:
        CheckpointError: these are not the weights of an Infinity transformer.
    """
    _shape(shapes, "cfg_uncond", 2, TRANSFORMER_KIND)
    _shape(shapes, "word_embed.weight", 2, TRANSFORMER_KIND)


def infer_tokenizer_config(shapes: Shapes) -> TokenizerConfig:
    """Sizes of the tokenizer whose weights these are.

    Args:
        shapes: official name, in either spelling -> shape.

    Raises:
        CheckpointError: these are not the weights of an Infinity tokenizer.
    """
    kind = "an Infinity tokenizer"
    own = {tokenizer_key(key): tuple(shape) for key, shape in shapes.items()}
    channels = _shape(own, "encoder.conv_in.weight", 4, kind)[0]
    bits = _shape(own, "decoder.conv_in.weight", 4, kind)[1]
    if "quantize.embedding.weight" in own or "encoder.mid.attn_1.norm.weight" in own:
        raise CheckpointError(f"These are not the weights of {kind}: they have a codebook or attention.")
    levels = len({found[1] for key in own if (found := re.match(r"encoder\.down\.(\d+)\.", key))})
    widths = [_shape(own, f"encoder.down.{level}.block.0.conv2.weight", 4, kind)[0] for level in range(levels)]
    if any(width % channels for width in widths):
        raise CheckpointError(f"The widths {widths} of the encoder's levels are no multiples of its first, {channels}.")
    blocks = len({found[1] for key in own if (found := re.match(r"encoder\.down\.0\.block\.(\d+)\.", key))})
    multipliers = tuple(width // channels for width in widths)
    try:
        groups = groups_of([channels, *widths])
        return TokenizerConfig(AutoencoderConfig(channels, multipliers, blocks, bits, groups, attention=False))
    except ConfigError as error:
        raise CheckpointError(f"No Infinity tokenizer has these weights: {error}") from error


def infer_transformer_config(
    shapes: Shapes, bits: int, *, level_every_chunk: bool = False, rope_mode: int = 2
) -> TransformerConfig:
    """Sizes of the transformer whose weights these are.

    Args:
        shapes: official name -> shape.
        bits: of the tokenizer: a transformer of four times as many has patches.
        level_every_chunk: not told by weights; False in every released model.
        rope_mode: not told by weights; 2 in every released model.

    Raises:
        CheckpointError: these are not the weights of an Infinity transformer, or of one with another tokenizer.
    """
    kind = TRANSFORMER_KIND
    length, text_channels = _shape(shapes, "cfg_uncond", 2, kind)
    width, token_bits = _shape(shapes, "word_embed.weight", 2, kind)
    if token_bits not in (bits, 4 * bits):
        raise CheckpointError(
            f"The transformer has {token_bits} bits per token, the tokenizer {bits}: they were not trained together "
            f"(a tokenizer has {token_bits} bits, or {token_bits}/4 with patches)."
        )
    chunks, per_chunk = chunk_sizes(shapes)
    first = "block_chunks.0.module.0." if chunks > 1 or "block_chunks.0.module.0.ada_gss" in shapes else "blocks.0."
    heads = max(_shape(shapes, f"{first}sa.scale_mul_1H11", 4, kind))
    try:
        return TransformerConfig(
            depth=chunks * per_chunk,
            width=width,
            heads=heads,
            bits=bits,
            text_channels=text_channels,
            patchify=token_bits != bits,
            text_length=length,
            text_heads=_shape(shapes, "text_proj_for_sos.ca.mat_q", 3, kind)[1],
            chunks=chunks,
            levels=_shape(shapes, "lvl_embed.weight", 2, kind)[0],
            hidden=_shape(shapes, f"{first}ffn.fc1.weight", 2, kind)[0],
            level_every_chunk=level_every_chunk,
            rope_mode=rope_mode,
        )
    except ConfigError as error:
        raise CheckpointError(f"No Infinity transformer has these weights: {error}") from error


def _shape(shapes: Shapes, name: str, dimensions: int, kind: str) -> tuple[int, ...]:
    if name not in shapes:
        first = ", ".join(list(shapes)[:3])
        raise CheckpointError(
            f"These are not the weights of {kind}: {name!r} is missing among {len(shapes)} entries ({first}, ...)."
        )
    shape = tuple(shapes[name])
    if len(shape) != dimensions:
        raise CheckpointError(f"{name!r} of {kind} has {dimensions} dimensions, found {shape}.")
    return shape

"""The names of the official files, and this package's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from hguide.errors import CheckpointError

__all__ = ["DROPPED", "MASKS", "chunk_sizes", "tokenizer_key", "transformer_key", "transformer_weight"]

MASKS = ("quantizer.lfq.mask", "quantize.lfq.mask")
"""Powers of two that number the codes; nothing reads them here."""

DROPPED = ("lvl_1L", "attn_bias_for_masking", "Infinity_visible_kvlen", "Infinity_invisible_qlen")
"""Derived buffers of old files: never read, never copied."""

_CHUNKED = re.compile(r"block_chunks\.(\d+)\.module\.(\d+)\.")
_INNER = re.compile(r"\.(?:(conv_in|conv_out|conv1|conv2|nin_shortcut)\.conv|(norm1|norm2|norm_out)\.norm)\.")
_SAMPLED = re.compile(r"\.((?:down|up)sample)\.conv\.conv\.")


def tokenizer_key(key: str) -> str:
    """`encoder.conv_in.conv.weight` -> `encoder.conv_in.weight`; both spellings are in use."""
    return _SAMPLED.sub(r".\1.conv.", _INNER.sub(lambda found: f".{found[1] or found[2]}.", key))


def transformer_key(key: str, per_chunk: int) -> str:
    """`block_chunks.1.module.2.` -> `blocks.{per_chunk + 2}.`; other names as they are.

    Args:
        key: of an official file.
        per_chunk: blocks of one chunk.
    """
    return _CHUNKED.sub(lambda found: f"blocks.{int(found[1]) * per_chunk + int(found[2])}.", key)


def transformer_weight(key: str, value: Tensor) -> Tensor | None:
    """An entry as the network takes it; None for a buffer.

    `scale_mul_1H11` of models trained with a private attention kernel is `(1, 1, H, 1)`.

    Args:
        key: by this package's name.
        value: of the file.

    Raises:
        CheckpointError: a key bias that is not zero; keys have none in this network.
    """
    if key in DROPPED:
        return None
    if key.endswith("zero_k_bias"):
        if not value.is_meta and bool(value.any()):
            raise CheckpointError(f"{key} is not zero: keys have no bias in this network.")
        return None
    if key.endswith("scale_mul_1H11") and value.ndim == 4:
        return value.reshape(1, -1, 1, 1)
    return value


def _chunk_and_place(key: str) -> tuple[int, int] | None:
    found = _CHUNKED.match(key)
    return None if found is None else (int(found[1]), int(found[2]))


def chunk_sizes(state: Mapping[str, object]) -> tuple[int, int]:
    """Number of chunks and blocks of each; one chunk where the file numbers its blocks through.

    Args:
        state: names of an official file.

    Raises:
        CheckpointError: chunks of different sizes.
    """
    places = {place for key in state if (place := _chunk_and_place(key)) is not None}
    if not places:
        return 1, len({int(found[1]) for key in state if (found := re.match(r"blocks\.(\d+)\.", key))})
    chunks, size = max(chunk for chunk, _ in places) + 1, max(place for _, place in places) + 1
    if len(places) != chunks * size:
        raise CheckpointError(f"the file has {len(places)} blocks, which {chunks} chunks of {size} do not hold.")
    return chunks, size

"""Reading the published files of Infinity: bare, wrapped by training, or in shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hguide.backends.checkpoints import read_state_dict
from hguide.backends.hub import fetch
from hguide.backends.infinity.generator import Infinity
from hguide.backends.infinity.infer_config import check_family, infer_tokenizer_config, infer_transformer_config
from hguide.backends.infinity.official_keys import chunk_sizes, tokenizer_key, transformer_key, transformer_weight
from hguide.backends.infinity.scale_schedule import ScaleSchedule
from hguide.backends.infinity.tokenizer import InfinityTokenizer
from hguide.backends.infinity.transformer import InfinityTransformer
from hguide.backends.model_file import filled
from hguide.backends.sharded import index_in, read_shards
from hguide.errors import CheckpointError

__all__ = ["load_published", "load_tokenizer", "load_transformer", "transformer_path"]

NETWORKS = ("encoder.", "decoder.")
TOKENIZER_FILES: Mapping[int, tuple[str, ...]] = {
    16: ("infinity_vae_d16.pth",),
    24: ("infinity_vae_d24.pth",),
    32: ("infinity_vae_d32reg.pth", "infinity_vae_d32_reg.pth", "infinity_vae_d32.pth"),
    56: ("infinity_vae_d56_f8_14_patchify.pth",),
    64: ("infinity_vae_d64.pth",),
}
"""Bits per token of a transformer -> names under which its tokenizer is published."""


def load_published(
    path: Path,
    tokenizer_path: Path | None = None,
    *,
    schedule: ScaleSchedule,
    dtype: torch.dtype = torch.float32,
    level_every_chunk: bool = False,
    rope_mode: int = 2,
) -> Infinity:
    """The model of published files; sizes are read off the weights.

    Args:
        path: file of the transformer, bare or as training wrapped it, or the index of its shards.
        tokenizer_path: file of the tokenizer; by default the published one beside the transformer.
        schedule: the grids.
        dtype: of the transformer's blocks.
        level_every_chunk: see `load`.
        rope_mode: see `load`.
    """
    state = _read(path)
    with _naming(path):
        check_family(_shapes(state))
        pictures = tokenizer_path or _tokenizer_beside(path, state)
    tokenizer = load_tokenizer(pictures)
    transformer = _transformer(
        path, state, tokenizer.config.bits, dtype=dtype, level_every_chunk=level_every_chunk, rope_mode=rope_mode
    )
    name = path.parent.name if _is_index(path) else path.stem
    return Infinity(transformer, tokenizer, schedule, name=name)


def load_transformer(
    path: Path,
    bits: int,
    *,
    dtype: torch.dtype = torch.float32,
    level_every_chunk: bool = False,
    rope_mode: int = 2,
) -> InfinityTransformer:
    """The transformer of a published file.

    Args:
        path: a file, or the index of shards.
        bits: of the tokenizer; four times as many bits per token mean patches.
        dtype: of the blocks.
        level_every_chunk: see `load`.
        rope_mode: see `load`.

    Raises:
        CheckpointError: not the weights of an Infinity transformer; lists wrong or missing names.
    """
    return _transformer(path, _read(path), bits, dtype=dtype, level_every_chunk=level_every_chunk, rope_mode=rope_mode)


def _transformer(
    path: Path, state: Mapping[str, Tensor], bits: int, *, dtype: torch.dtype, **options: Any
) -> InfinityTransformer:
    with _naming(path):
        shapes = _shapes(state)
        config = infer_transformer_config(shapes, bits, **options)
        weights = _own_names(state, chunk_sizes(shapes)[1])
        return filled(lambda: InfinityTransformer(config).cast_blocks(dtype), weights)


def load_tokenizer(path: Path) -> InfinityTokenizer:
    """The tokenizer of a published file, names in either spelling; only encoder and decoder are read.

    Raises:
        CheckpointError: not the weights of an Infinity tokenizer; lists missing names.
    """
    state = {key: value for key, value in read_state_dict(path, ("vae",)).items() if key.startswith(NETWORKS)}
    with _naming(path):
        config = infer_tokenizer_config(_shapes(state))
        return filled(lambda: InfinityTokenizer(config), {tokenizer_key(key): value for key, value in state.items()})


def transformer_path(source: str | Path, file: str | None, revision: str | None) -> Path:
    """The transformer's file, or the index of its shards.

    Args:
        source: a file, a folder of shards, an official name or a hub id.
        file: inside a folder or hub repository.
        revision: of the hub repository.

    Raises:
        CheckpointError: there is no such file.
    """
    path = Path(source).expanduser()
    if file is None and path.is_dir():
        return index_in(path) or fetch(source, file, revision)
    if file is not None and _is_index(Path(file)):
        path = path / file
    if not _is_index(path):
        return fetch(source, file, revision)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    return path


def _read(path: Path) -> dict[str, Tensor]:
    """The weights of a file or of the shards of an index, mapped, so that only what is copied takes memory."""
    if not _is_index(path):
        return read_state_dict(path, ("gpt_fsdp",))
    return {key: value for shard in read_shards(path) for key, value in shard.items()}


def _own_names(state: Mapping[str, Tensor], per_chunk: int) -> dict[str, Tensor]:
    found = {}
    for official, value in state.items():
        key = transformer_key(official, per_chunk)
        weight = transformer_weight(key, value)
        if weight is not None:
            found[key] = weight
    return found


def _is_index(path: Path) -> bool:
    return path.name.endswith(".index.json")


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file in front of what is wrong with it."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _tokenizer_beside(path: Path, state: Mapping[str, Tensor]) -> Path:
    """Beside the file, or beside the folder of shards."""
    names = TOKENIZER_FILES.get(state["word_embed.weight"].shape[-1], ())
    folders = [path.parent, path.parent.parent] if _is_index(path) else [path.parent]
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    wanted = f" ({' or '.join(names)})" if names else ""
    raise CheckpointError(f"it holds a transformer; its tokenizer{wanted} is not beside it: pass tokenizer=PATH.")

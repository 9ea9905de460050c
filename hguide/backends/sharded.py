"""State dicts cut into several files, with an index that says which tensor lies in which."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from hguide.backends.checkpoints import read_state_dict
from hguide.errors import CheckpointError

__all__ = ["INDEX", "index_in", "read_shards"]

INDEX = ".index.json"


def index_in(folder: Path) -> Path | None:
    """The index of the shards in a folder, None where there is none.

    Raises:
        CheckpointError: there are several.
    """
    found = sorted(folder.glob(f"*{INDEX}"))
    if len(found) > 1:
        raise CheckpointError(f"{folder}: holds several indices of shards ({', '.join(each.name for each in found)}).")
    return found[0] if found else None


def read_shards(index: Path) -> Iterator[dict[str, Tensor]]:
    """The tensors of each shard that an index lists, shard by shard.

    Args:
        index: a JSON file with a `weight_map` from tensor to file, as transformers and diffusers write it.

    Raises:
        CheckpointError: a shard is missing or damaged, or lacks a tensor that the index puts in it.
    """
    places = _weight_map(index)
    shards = sorted(set(places.values()))
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    if missing:
        raise CheckpointError(
            f"{index}: {len(missing)} of {len(shards)} shards are missing beside it: {', '.join(missing[:5])}."
        )
    for shard in shards:
        state = read_state_dict(index.parent / shard)
        lacking = [name for name, place in places.items() if place == shard and name not in state]
        if lacking:
            raise CheckpointError(f"{index.parent / shard}: lacks {', '.join(lacking[:5])}, which {index.name} lists.")
        yield state


def _weight_map(index: Path) -> dict[str, str]:
    try:
        places = json.loads(index.read_text())["weight_map"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index}: no index of shards ({error!r}).") from error
    # A name with a path in it would read files outside of the folder.
    if not isinstance(places, dict) or not all(isinstance(f, str) and f == Path(f).name for f in places.values()):
        raise CheckpointError(f"{index}: its weight_map must name files of the same folder.")
    return places

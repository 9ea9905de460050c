"""The weights of a folder in the layout of transformers: one file, or shards with an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from hguide.backends.checkpoints import read_state_dict
from hguide.backends.sharded import INDEX, index_in, read_shards
from hguide.errors import CheckpointError

__all__ = ["find_weights", "read_weights"]

USUAL = ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def find_weights(folder: Path) -> Path:
    """The file of weights of a folder, or the index of its shards.

    Args:
        folder: of one model.

    Raises:
        CheckpointError: there is no such folder, or none of the usual files in it.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder.")
    found = next((folder / name for name in USUAL if (folder / name).is_file()), None) or index_in(folder)
    if found is None:
        holds = ", ".join(sorted(each.name for each in folder.iterdir())) or "nothing"
        raise CheckpointError(f"{folder}: no weights ({', '.join(USUAL[:2])} or their {INDEX}); it holds {holds}.")
    return found


def read_weights(path: Path, names: Sequence[str] = ()) -> dict[str, Tensor]:
    """The tensors of a file, or of all shards that an index lists.

    Args:
        path: from `find_weights`.
        names: see `read_state_dict`.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    if not path.name.endswith(INDEX):
        return read_state_dict(path, names)
    return {name: tensor for shard in read_shards(path) for name, tensor in shard.items()}

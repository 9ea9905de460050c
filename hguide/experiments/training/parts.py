"""Files of a generator in training, part by part: for families of more than one trained network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from hguide.backends.checkpoints import load_into, read_state_dict, save_safetensors
from hguide.experiments.training.fit import TrainingModule, training_metadata
from hguide.load import BUNDLED, bundled_path

__all__ = ["load_parts", "weights_file", "write_parts"]


def weights_file(given: str | Path) -> Path:
    """The file of trained weights: a bundled model's by its name, else the path as it is."""
    return bundled_path(str(given)) if str(given) in BUNDLED else Path(given)


def load_parts(network: nn.ModuleDict, path: str | Path) -> None:
    """Take the weights of all parts from a file of `write_parts`, a bundle that was made of one, or a bundled model.

    Raises:
        CheckpointError: no such file, or weights that do not fit.
    """
    prefixes = tuple(f"{name}." for name in network)
    state = read_state_dict(weights_file(path))
    load_into(network, {key: value.float() for key, value in state.items() if key.startswith(prefixes)})


def write_parts(
    module: TrainingModule,
    family: str,
    parts: Mapping[str, Mapping[str, Any]],
    tokenizer_hash: str,
    measured: Mapping[str, float],
    path: Path,
) -> None:
    """Write the averaged weights of a `ModuleDict` in float32, each part's names behind its own: what `export` reads.

    Args:
        module: after training; its network is a `ModuleDict` of the parts.
        family: as `hguide.load` names it.
        parts: name -> description, as the family's loader expects it under that name.
        tokenizer_hash: of the tokenizer that the generator belongs to.
        measured: recorded with the training.
        path: to write.
    """
    metadata = {
        "family": family,
        "parts": {name: dict(description) for name, description in parts.items()},
        "tokenizer_hash": tokenizer_hash,
        "training": training_metadata(module) | dict(measured),
    }
    state = {key: value.float() for key, value in module.average.state_dict().items()}
    save_safetensors(path, state, {"hguide": json.dumps(metadata)})

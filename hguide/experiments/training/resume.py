"""Whether a folder's training can go on: the options it was started with, and its last checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hguide.backends.checkpoints import check_keys
from hguide.errors import CheckpointError, ConfigError
from hguide.experiments.training.run_config import RunConfig
from hguide.images import write_bytes

__all__ = ["MAY_CHANGE", "check_options", "last_checkpoint", "read_checkpoint", "write_options"]

MAY_CHANGE = (
    "data",
    "out",
    "steps",
    "minutes",
    "epoch_steps",
    "checkpoint_steps",
    "precision",
    "accelerator",
    "threads",
)
"""Options that may be others when a training goes on: its length, and where and how exactly it computes."""

OTHER_OUT = "Give the old values to go on, or choose another --out."


def last_checkpoint(config: RunConfig) -> Path:
    """Where the checkpoint of a training is kept."""
    return Path(config.out) / "last.ckpt"


def write_options(config: RunConfig) -> None:
    """Keep the options beside the checkpoint."""
    write_bytes(_options_file(config), json.dumps(asdict(config), indent=1, default=str).encode())


def check_options(config: RunConfig) -> None:
    """Refuse options other than those that the training in `out` was started with.

    Raises:
        ConfigError: some differ that are not of `MAY_CHANGE`, or the file that holds them is damaged.
    """
    file = _options_file(config)
    if not last_checkpoint(config).is_file() or not file.is_file():
        return
    before = _read_options(file)
    # Options that one side does not know are of another version, which had or has no choice there.
    now = json.loads(json.dumps(asdict(config), default=str))
    differ = [name for name in now if name in before and name not in MAY_CHANGE and now[name] != before[name]]
    if differ:
        shown = "; ".join(f"{name} was {before[name]!r} and is {now[name]!r}" for name in differ)
        raise ConfigError(f"{config.out} holds a training with other options: {shown}. {OTHER_OUT}")


def read_checkpoint(path: Path, module: nn.Module, scenes: str) -> dict[str, Any]:
    """What a training wrote of itself when it last stopped.

    Args:
        path: the checkpoint.
        module: that is to go on from there.
        scenes: hash of the scenes that it trains on.

    Raises:
        CheckpointError: the file is damaged, of another program, or of another network, tokenizer or other scenes.
    """
    start_anew = "Delete it to start anew, or choose another --out."
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything from the reader
        raise CheckpointError(
            f"{path}: damaged or cut short, the training cannot go on from it. {start_anew}"
        ) from error
    if not isinstance(content, Mapping) or not {"hguide", "state_dict"} <= content.keys():
        raise CheckpointError(f"{path}: not a checkpoint of `hguide train`. {start_anew}")
    try:
        check_keys({name: value.shape for name, value in module.state_dict().items()}, content["state_dict"])
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} is of another network than the options describe. {start_anew}\n{error}"
        ) from error
    # A checkpoint brings its tokenizer along, but the tokens were made by the one that the options name.
    own = {name: value for name, value in module.state_dict().items() if name.startswith("tokenizer.")}
    if not all(torch.equal(value.cpu(), content["state_dict"][name]) for name, value in own.items()):
        raise CheckpointError(f"{path} was trained on the tokens of another tokenizer than now. {start_anew}")
    # Those of earlier versions do not say which scenes it was.
    if content["hguide"].get("scenes", scenes) != scenes:
        raise CheckpointError(f"{path} was trained on other scenes than those of data now. {start_anew}")
    return dict(content)


def _options_file(config: RunConfig) -> Path:
    return Path(config.out) / "config.json"


def _read_options(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ConfigError(
            f"{file}: the options of this training are damaged. Delete the file, or choose another --out."
        )
    return found

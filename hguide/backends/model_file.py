"""Model files whatever the family: descriptions, parts, and modules that are filled without a second copy."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hguide.backends.checkpoints import load_into, read_metadata, read_state_dict, save_safetensors
from hguide.errors import CheckpointError

__all__ = ["config_beside", "described", "filled", "is_ours", "part", "read_parts", "save_parts"]

M = TypeVar("M", bound=nn.Module)


def is_ours(path: Path) -> bool:
    """Whether a file is one that `save_parts` wrote."""
    return path.suffix == ".safetensors" and path.is_file() and "hguide" in read_metadata(path)


def described(path: Path, family: str) -> dict[str, Any]:
    """The description in a file of ours.

    Args:
        path: of the file.
        family: that it must describe.

    Raises:
        CheckpointError: no description, or one of another family.
    """
    try:
        facts = json.loads(read_metadata(path)["hguide"])
        found = facts["family"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: carries no description of an hguide model; convert it first.") from error
    if found != family:
        raise CheckpointError(f"{path}: describes a model of the family {found!r}, asked for {family!r}.")
    return facts


def read_parts(path: Path, *prefixes: str) -> tuple[dict[str, Tensor], ...]:
    """The weights of each part of a file of ours, mapped, the prefix gone.

    Args:
        path: of the file.
        prefixes: of its parts, as "transformer.".

    Raises:
        CheckpointError: entries of no such part.
    """
    state = read_state_dict(path)
    stray = [key for key in state if not key.startswith(prefixes)]
    if stray:
        known = ", ".join(each.removesuffix(".") for each in prefixes)
        raise CheckpointError(f"{path}: entries of no part that it describes ({known}): {', '.join(stray[:5])}.")
    return tuple(part(state, prefix) for prefix in prefixes)


def save_parts(
    path: Path,
    parts: Mapping[str, nn.Module],
    description: Mapping[str, Any],
    dtype: torch.dtype,
    as_they_are: Collection[str] = (),
) -> None:
    """Write modules and their description into one safetensors file.

    Args:
        path: ends in `.safetensors`; replaced whole or not at all.
        parts: prefix -> module.
        description: becomes JSON.
        dtype: of the stored weights; whole numbers stay whole.
        as_they_are: names, with their prefix, that keep their own type.
    """
    tensors = {}
    for prefix, module in parts.items():
        for key, value in module.state_dict().items():
            name = prefix + key
            kept = name in as_they_are or not value.is_floating_point()
            tensors[name] = value.to("cpu", value.dtype if kept else dtype).contiguous()
    save_safetensors(path, tensors, {"hguide": json.dumps(description)})


def filled(make: Callable[[], M], state: Mapping[str, Tensor], tolerated: Collection[str] = ()) -> M:
    """A module whose memory is that of its own weights: made without any, then given its copies, one by one.

    Args:
        make: the module, in the types that it is to have.
        state: its weights; mapped ones are not read before they are copied.
        tolerated: see `load_into`.

    Raises:
        CheckpointError: names or shapes that do not fit.
    """
    with torch.device("meta"):
        module = make()
    load_into(module, state, tolerated)
    return module


def config_beside(path: Path) -> dict[str, Any]:
    """The settings in the config.json beside a file; empty where there is none.

    Raises:
        CheckpointError: one that is no JSON object.
    """
    beside = path.parent / "config.json"
    if not beside.is_file():
        return {}
    try:
        content = json.loads(beside.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{beside}: not readable as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{beside}: holds a {type(content).__name__}, expected an object of settings.")
    return content


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of a prefix, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}

"""Weights in files that nobody vouches for: reading, checking and writing them."""

from __future__ import annotations

import os
import re
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hguide.errors import CheckpointError

__all__ = ["check_keys", "load_into", "read_metadata", "read_state_dict", "save_safetensors"]

PICKLED = (".pth", ".pt", ".bin", ".ckpt")
ZIP_MAGIC = b"PK\x03\x04"
NESTING = 3
WRAPPERS = ("model", "module", "state_dict")


def read_state_dict(path: str | Path, names: Sequence[str] = ()) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU; nothing in the file is executed.

    Safetensors files are read as such; files of `torch.save` with `weights_only=True`, memory-mapped where their format
    allows it. A training checkpoint wraps its state dicts: `{"trainer": {"var_wo_ddp": {...}, "vae_local": {...}}}`, or
    its only one as "model", "module" or "state_dict".

    Args:
        path: a `.safetensors`, `.pth`, `.pt`, `.bin` or `.ckpt` file.
        names: names under which a wrapped state dict may stand, most wanted first.

    Returns:
        name -> tensor, in the order of the file.

    Raises:
        CheckpointError: the file is missing, damaged, hostile, of another type, or wraps no state dict of these names.
    """
    path = Path(path)
    _check_file(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _state_dict_in(_read_pickled(path), path, names)


def read_metadata(path: str | Path) -> dict[str, str]:
    """The text metadata of a safetensors file.

    Args:
        path: the file.

    Returns:
        name -> text, empty where the file has none.

    Raises:
        CheckpointError: the file is missing or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    _check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_unreadable(path, error)) from error


def save_safetensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and text metadata; a reader sees the old file or the whole new one, never a part.

    Args:
        path: the file to write; its folder exists.
        tensors: name -> tensor, any device; tensors that share memory are written each in full.
        metadata: name -> text; encode other values first, for example as JSON.
    """
    from safetensors.torch import save_file

    path = Path(path)
    own = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        # safetensors makes files that their owner alone can read; an ordinary new file shows what the user wants.
        unfinished.touch()
        mode = unfinished.stat().st_mode
        save_file(own, unfinished, dict(metadata))
        unfinished.chmod(mode)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def check_keys(
    expected: Mapping[str, Sequence[int]], found: Mapping[str, Tensor], tolerated: Collection[str] = ()
) -> None:
    """Compare the names and shapes of a state dict with those of a model.

    Args:
        expected: name -> shape of the model.
        found: the state dict.
        tolerated: names or shell patterns of entries that may be absent, present or of any shape.

    Raises:
        CheckpointError: listing every missing and unexpected name and every wrong shape; entries that differ in their
            block number only share a line.
    """
    missing = [name for name in expected if name not in found and not _matches(name, tolerated)]
    unexpected = [name for name in found if name not in expected and not _matches(name, tolerated)]
    shapes = [
        f"{name} (expected {_sizes(expected[name])}, found {_sizes(found[name].shape)})"
        for name in expected
        if name in found and tuple(expected[name]) != tuple(found[name].shape) and not _matches(name, tolerated)
    ]
    problems = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes}
    if any(problems.values()):
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in problems.items() if names)
        lines = [f"  {kind}: {line}" for kind, names in problems.items() for line in _folded(names)]
        raise CheckpointError(
            "\n".join([f"The weights do not fit the model ({counts} of {len(expected)} entries):", *lines])
        )


def load_into(module: nn.Module, state: Mapping[str, Tensor], tolerated: Collection[str] = ()) -> None:
    """Load a state dict strictly, or leave the module as it was.

    Args:
        module: the model; built on the meta device it receives its own copy of the tensors, in its own dtypes.
        state: name -> tensor.
        tolerated: names or shell patterns of entries that may be absent or present; where the module has no such entry,
            or another shape, it is ignored.

    Raises:
        CheckpointError: the names or shapes do not fit.
    """
    own = module.state_dict()
    check_keys({name: value.shape for name, value in own.items()}, state, tolerated)
    used = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    if any(value.is_meta for value in own.values()):
        # Copied because a tensor of a mapped file dies with the file, and would carry the file's dtype into the model.
        used = {name: value.to(own[name].dtype, copy=True).contiguous() for name, value in used.items()}
        module.load_state_dict(used, strict=False, assign=True)
    else:
        module.load_state_dict(used, strict=False)


def _check_file(path: Path) -> None:
    if path.suffix != ".safetensors" and path.suffix not in PICKLED:
        known = ", ".join((".safetensors", *PICKLED))
        raise CheckpointError(f"{path}: not a kind of weights file that is read here ({known}).")
    if not path.is_file():
        raise CheckpointError(f"{path}: {'not a file' if path.exists() else 'no such file'}.")


def _unreadable(path: Path, error: Exception) -> str:
    # The reader's own advice to try again with weights_only=False must not reach the user.
    said = [sentence.strip() for sentence in re.split(r"\n|(?<=\.) ", str(error))]
    kept = [sentence for sentence in said if sentence and "False" not in sentence]
    reason = kept[0] if kept else type(error).__name__
    return f"{path}: damaged, cut short or no weights file ({reason[:200]})."


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(_unreadable(path, error)) from error


def _read_pickled(path: Path) -> Any:
    with path.open("rb") as file:
        mapped = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a hostile file may raise anything from the reader
        blocked = re.search(r"\bGLOBAL ([\w.]+)", str(error))
        if blocked:
            raise CheckpointError(
                f"{path}: refused, it asks to run or build {blocked.group(1)!r}, which weights do not need; "
                "nothing of it was executed."
            ) from error
        raise CheckpointError(_unreadable(path, error)) from error


def _state_dict_in(content: Any, path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """The content itself if it is a state dict, else the first wrapped one of the wanted names."""
    if _is_state_dict(content):
        return _dense(content, path)
    wrapped = dict(_wrapped(content, NESTING))
    for wanted in names:
        for place, state in wrapped.items():
            if place[-1] == wanted:
                return _dense(state, path)
    if len(wrapped) == 1 and next(iter(wrapped))[-1] in WRAPPERS:
        return _dense(next(iter(wrapped.values())), path)
    offered = ", ".join(".".join(place) for place in wrapped)
    wanted_names = f"{' or '.join(map(repr, names))}" if names else "a state dict at the top level"
    raise CheckpointError(f"{path}: asked for {wanted_names}, the file holds {offered or 'no state dict'}.")


def _wrapped(content: Any, nesting: int, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(content, Mapping) or not nesting:
        return
    for name, value in content.items():
        if _is_state_dict(value):
            yield (*place, str(name)), value
        else:
            yield from _wrapped(value, nesting - 1, (*place, str(name)))


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def _dense(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    odd = [name for name, value in state.items() if value.layout != torch.strided or value.is_quantized]
    if odd:
        raise CheckpointError(f"{path}: weights must be dense and not quantised, these are not: {', '.join(odd[:5])}.")
    # Data-parallel training puts its own name before every other.
    parallel = all(name.startswith("module.") for name in state)
    return {name.removeprefix("module.") if parallel else name: value.detach() for name, value in state.items()}


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _folded(names: Iterable[str]) -> list[str]:
    """One line for names that differ in their first number only: `blocks.{0-15}.attn.proj.bias`."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for name in names:
        parts = re.split(r"(?<=\.)(\d+)(?=\.)", name, maxsplit=1)
        before, number, after = parts if len(parts) == 3 else (name, "", "")
        groups[before, after].extend([int(number)] if number else [])
    return [
        before + (f"{{{_ranges(sorted(numbers))}}}" if len(numbers) > 1 else "".join(map(str, numbers))) + after
        for (before, after), numbers in groups.items()
    ]


def _ranges(numbers: Sequence[int]) -> str:
    """`0-3, 7` for sorted 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)

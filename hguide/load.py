"""`hguide.load`: bundled models by name, checkpoints by path or hub id."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from hguide.backends import registry
from hguide.errors import CheckpointError, RegistryError, near_matches
from hguide.generator import ScaleGenerator

__all__ = ["BUNDLED", "bundled_path", "load"]

BUNDLED: Mapping[str, str] = MappingProxyType({"landuse-var": "var"})
"""Models that come with the package: name -> family."""

LOADERS: Mapping[str, str] = MappingProxyType({"var": "hguide.backends.var.files"})
"""Family -> module with `load(source, *, device, dtype, ...)`."""


def bundled_path(name: str) -> Path:
    """The weights of a bundled model."""
    return Path(__file__).parent / "backends" / BUNDLED[name] / "weights" / f"{name}.safetensors"


def load(
    name_or_path: str | Path,
    *,
    family: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> ScaleGenerator:
    """A generator: a bundled model, a registered backend that needs no weights, or a checkpoint.

    Args:
        name_or_path: "landuse-var" (bundled), "toy", a file, a folder, an official name ("var-d16") or a hub id.
        family: of a checkpoint whose file does not tell; "var" by default.
        device: "cpu", "cuda", "mps" or a `torch.device`.
        dtype: of the network.
        **options: of the family's loader, for instance `tokenizer=PATH` (`hguide.backends.var.files.load`).

    Returns:
        The generator, in evaluation mode.

    Raises:
        RegistryError: an unknown family.
        CheckpointError: no such file or name, or unusable weights.

    Example:
        >>> import hguide
        >>> hguide.load("landuse-var").channels
        Categorical(size=...)
    """
    text = str(name_or_path)
    if text in BUNDLED:
        path = bundled_path(text)
        if not path.is_file():
            raise CheckpointError(f"{text}: its weights are missing from this installation ({path}); install it again.")
        return _loader(BUNDLED[text])(path, device=device, dtype=dtype, **options)
    if "/" not in text and not Path(text).exists() and "." not in text and text in registry and text not in LOADERS:
        return registry.get(text)(**options)
    try:
        return _loader(family or _family_of(Path(text)))(name_or_path, device=device, dtype=dtype, **options)
    except CheckpointError as error:
        if Path(text).exists() or "/" in text:
            raise
        raise CheckpointError(f"{error} Bundled models: {near_matches(text, BUNDLED)}") from None


def _loader(family: str) -> Any:
    if family not in LOADERS:
        raise RegistryError(f"no loader for the family {family!r}: {near_matches(family, LOADERS)}")
    return importlib.import_module(LOADERS[family]).load


def _family_of(path: Path) -> str:
    """The family that a file of ours names; VAR, the only published pair without one, otherwise."""
    if path.suffix != ".safetensors" or not path.is_file():
        return "var"
    from hguide.backends.checkpoints import read_metadata

    try:
        return str(json.loads(read_metadata(path).get("hguide", "{}")).get("family", "var"))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: its description is damaged: {error}.") from error

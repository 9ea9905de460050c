"""`hguide.load`: bundled models by name, checkpoints by path or hub id."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from hguide.backends import registry
from hguide.errors import CheckpointError, ConfigError, RegistryError, near_matches
from hguide.generator import ScaleGenerator

__all__ = ["BUNDLED", "bundled_path", "family_of", "load"]

BUNDLED: Mapping[str, str] = MappingProxyType(
    {
        "landuse-var": "var",
        "landuse-var-weak": "var",
        "landuse-hart": "hart",
        "landuse-infinity": "infinity",
        "landuse-vqdiffusion": "vq_diffusion",
    }
)
"""Models that come with the package: name -> family."""

LOADERS: Mapping[str, str] = MappingProxyType(
    {
        "hart": "hguide.backends.hart.files",
        "infinity": "hguide.backends.infinity.files",
        "switti": "hguide.backends.switti.files",
        "var": "hguide.backends.var.files",
        "vq_diffusion": "hguide.backends.vq_diffusion.files",
    }
)
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
        device: "cpu", "cuda", "mps" or a `torch.device`; a registered backend that takes none, as "toy", stays where it
            is.
        dtype: of the network.
        **options: of the family's loader, for instance `tokenizer=PATH` (`hguide.backends.var.files.load`).

    Returns:
        The generator, in evaluation mode.

    Raises:
        RegistryError: an unknown family.
        CheckpointError: no such file or name, or unusable weights.
        ConfigError: an option that the family does not have, or no such device or dtype.

    Example:
        >>> import hguide
        >>> hguide.load("landuse-var").channels
        Categorical(size=...)
    """
    text = str(name_or_path)
    device, dtype = _checked_device(device), _checked_dtype(dtype)
    if text in BUNDLED:
        if family not in (None, BUNDLED[text]):
            raise ConfigError(f"{text} is a model of the family {BUNDLED[text]!r}, asked for {family!r}.")
        path = bundled_path(text)
        if not path.is_file():
            raise CheckpointError(f"{text}: its weights are missing from this installation ({path}); install it again.")
        return _loader(BUNDLED[text], options)(path, device=device, dtype=dtype, **options)
    if "/" not in text and not Path(text).exists() and "." not in text and text in registry and text not in LOADERS:
        backend = registry.get(text)
        _check_options(text, backend, options)
        given = {"device": device, "dtype": dtype}
        taken = {name: value for name, value in given.items() if name in inspect.signature(backend).parameters}
        if "dtype" not in taken and dtype != torch.float32:
            raise ConfigError(f"{text} takes no dtype: it computes in its own, asked for {dtype}.")
        return backend(**taken, **options)
    loader = _loader(family or _family_of(Path(text).expanduser()), options)
    try:
        return loader(name_or_path, device=device, dtype=dtype, **options)
    except CheckpointError as error:
        if Path(text).expanduser().exists() or "/" in text:
            raise
        raise CheckpointError(f"{error} Bundled models: {near_matches(text, BUNDLED)}") from None


def family_of(name_or_path: str | Path) -> str:
    """The family of what `load` takes by that name, as far as the name or the file tells.

    >>> family_of("landuse-var")
    'var'
    """
    text = str(name_or_path)
    if text in BUNDLED:
        return BUNDLED[text]
    return text if text in registry and text not in LOADERS else _family_of(Path(text).expanduser())


def _checked_device(device: torch.device | str) -> torch.device:
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f'device is "cpu", "cuda", "mps" or a torch.device, got {device!r}.') from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f'device {device!r}: PyTorch sees no CUDA device here; use device="cpu".')
    return found


def _checked_dtype(dtype: torch.dtype) -> torch.dtype:
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ConfigError(f"dtype is a floating type, for instance torch.bfloat16, got {dtype!r}.")
    return dtype


def _loader(family: str, options: Mapping[str, Any]) -> Any:
    if family not in LOADERS:
        raise RegistryError(f"no loader for the family {family!r}: {near_matches(family, LOADERS)}")
    loader = importlib.import_module(LOADERS[family]).load
    _check_options(family, loader, options)
    return loader


def _check_options(family: str, taken_by: Callable[..., Any], options: Mapping[str, Any]) -> None:
    known = set(inspect.signature(taken_by).parameters) - {"source", "device", "dtype"}
    for name in options:
        if name not in known:
            raise ConfigError(f"models of {family} are loaded without an option {name!r}: {near_matches(name, known)}")


def _family_of(path: Path) -> str:
    """The family that a file of ours names, or that a published layout shows; VAR otherwise."""
    if _is_published_hart(path):
        return "hart"
    if _is_published_vq_diffusion(path):
        return "vq_diffusion"
    if _is_published_switti(path):
        return "switti"
    if path.suffix != ".safetensors" or not path.is_file():
        return "infinity" if _is_published_infinity(path) else "var"
    from hguide.backends.checkpoints import read_metadata

    try:
        facts = json.loads(read_metadata(path).get("hguide", "{}"))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: its description is damaged: {error}.") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path}: its description is damaged: a mapping was expected, got {facts!r}.")
    return str(facts.get("family", "var"))


def _is_published_hart(path: Path) -> bool:
    """The published folder of HART (`llm` and `tokenizer`), something in its `llm`, or its repository on the hub."""
    return "llm" in (path.name, path.parent.name) or (path / "llm").is_dir() or str(path).startswith("mit-han-lab/hart")


def _is_published_infinity(path: Path) -> bool:
    """A file, folder or short name of Infinity's, a shard index in such a folder, or its repository on the hub."""
    names = (path.name.lower(), path.parent.name.lower() if path.name.endswith(".index.json") else "")
    return any(name.startswith(("infinity_", "infinity-")) for name in names) or str(path).lower().startswith(
        "foundationvision/infinity"
    )


def _is_published_vq_diffusion(path: Path) -> bool:
    """An official checkpoint by its name, a folder of diffusers' pipeline, or its repository on the hub."""
    index = path / "model_index.json"
    if index.is_file():
        return "VQDiffusionPipeline" in index.read_text(errors="replace")
    data = ("imagenet", "coco", "cc", "cub", "human", "ithq")
    names = tuple(f"{each}_{kind}.pth" for each in data for kind in ("pretrained", "learnable"))
    return path.name.lower().startswith(names) or str(path).startswith("microsoft/vq-diffusion")


def _is_published_switti(path: Path) -> bool:
    """A folder of Switti's by its name, the weights in it, or its repository on the hub."""
    folder = path.parent.name if path.name == "model.safetensors" else path.name
    return folder.lower() == "switti" or folder.lower().startswith("switti-")

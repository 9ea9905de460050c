"""What a result must carry to be repeated: the model's hash, versions, the device."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from hguide.generator import ScaleGenerator
from hguide.guidance import text_of
from hguide.sampling import Sampler
from hguide.schedules import Schedule

__all__ = ["device_facts", "model_hash", "sampler_facts", "versions"]

PACKAGES = ("torch", "numpy", "pillow", "safetensors")


def model_hash(generator: ScaleGenerator) -> str:
    """SHA-256 of a generator's weights as they compute: names, dtypes, shapes and bytes of all its tensors.

    Independent of the file they came from; another dtype is another hash, since it makes other images.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(generator)):
        value = tensor.detach().contiguous().cpu()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(generator: ScaleGenerator) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(generator).items():
        if isinstance(value, nn.Module):
            yield from ((f"{name}.{key}", tensor) for key, tensor in value.state_dict().items())
        for place, entry in enumerate(value if isinstance(value, list | tuple) else [value]):
            if isinstance(entry, Tensor):
                yield f"{name}.{place:04d}", entry


def sampler_facts(sampler: Sampler) -> dict[str, Any]:
    """The sampler's settings as numbers, lists and texts."""
    return {name: _plain(getattr(sampler, name)) for name in ("temperature", "top_k", "top_p")}


def _plain(value: Any) -> Any:
    if isinstance(value, Schedule):
        return text_of(value)
    if callable(value):
        # An EntropyTemperature has a text form; a function of the caller's own has its name at most.
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of what the numbers depend on."""
    from hguide import __version__

    found = {"hguide": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def device_facts(device: torch.device) -> dict[str, Any]:
    """The device in words, and the number of CPU threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"type": device.type, "name": name, "threads": torch.get_num_threads(), "system": platform.platform()}

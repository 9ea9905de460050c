"""What a result must carry to be repeated: the model's hash, versions, the device."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from hguide.generator import ScaleGenerator
from hguide.guidance import parse_schedule, text_of
from hguide.sampling import Sampler
from hguide.schedules import Schedule
from hguide.temperature import parse_temperature

__all__ = ["device_facts", "model_hash", "sampler_facts", "sampler_from", "versions"]

PACKAGES = ("torch", "numpy", "pillow", "safetensors")


def model_hash(generator: ScaleGenerator) -> str:
    """SHA-256 of a generator's weights as they compute: names, dtypes, shapes and bytes of all its tensors.

    Independent of the file they came from; another dtype is another hash, since it makes other images. A text encoder
    whose weights it does not hold itself counts by its fingerprint.
    """
    digest = hashlib.sha256()
    for name, value in sorted(vars(generator).items()):
        if not isinstance(value, nn.Module) and isinstance(fingerprint := getattr(value, "fingerprint", None), str):
            digest.update(f"{name} {fingerprint};".encode())
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


def sampler_from(settings: Mapping[str, Any]) -> Sampler:
    """A sampler of numbers, lists and texts, as `sampler_facts` writes them.

    Args:
        settings: any of "temperature", "top_k" and "top_p".

    >>> sampler_from({"top_k": 200.0, "temperature": [1.0, 0.5]})
    Sampler(temperature=(1.0, 0.5), top_k=200, top_p=0.0)
    """
    return Sampler(**{name: _setting(name, value) for name, value in settings.items()})


def _setting(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return parse_temperature(value) if name == "temperature" else parse_schedule(value)
    if isinstance(value, Sequence):
        return tuple(value)
    return int(value) if name == "top_k" and isinstance(value, float) and value.is_integer() else value


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

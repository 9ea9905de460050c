"""What the times depend on: the machine, its load, the libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hguide.errors import ConfigError
from hguide.provenance import device_facts, versions

__all__ = ["checked_device", "load_average", "machine_facts", "threads"]


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Device, processor, threads, instruction set, matrix precision and versions."""
    return {
        **device_facts(device),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "load_before": load_average(),
        "versions": versions(),
    }


def load_average() -> float | None:
    """Processes that wanted a core during the last minute, where the system counts them."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def checked_device(name: str) -> torch.device:
    """The device of a name, tried out.

    Raises:
        ConfigError: it cannot be used here.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the device {name!r} cannot be used here: {reason}") from None
    return device


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute with so many CPU threads, then with as many as before.

    Raises:
        ConfigError: fewer than one.
    """
    if count is not None and count < 1:
        raise ConfigError(f"threads is at least 1, got {count}.")
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def _processor() -> str:
    """The processor's name, which Python does not know on Linux."""
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    import platform

    return platform.processor() or platform.machine()

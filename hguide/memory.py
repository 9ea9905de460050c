"""What a run holds in memory, known before it starts, and how many samples fit at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hguide.errors import ConfigError

if TYPE_CHECKING:
    from hguide.generator import ScaleGenerator
    from hguide.streams import Stream

__all__ = ["RunBytes", "automatic_batch_size", "free_bytes"]

# Part of the free memory that a run may fill: allocators round up, and libraries keep workspaces.
_SHARE = 0.7
# More samples at once make no step faster per sample; where a family does not tell its memory, this few are safe.
_MOST, _UNTOLD = 64, 16
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class RunBytes:
    """Predicted bytes of a run, without the weights.

    Attributes:
        cache: keys and values at full length.
        constants: what is computed once per run and held to its end: modulation, latents, inputs of the steps.
        step: on top at the largest step: activations, logits of all streams, guidance, draw.
        decode: on top while images are decoded.
    """

    cache: int
    constants: int
    step: int
    decode: int

    @property
    def peak(self) -> int:
        """The most held at any time."""
        return self.cache + self.constants + max(self.step, self.decode)

    def __add__(self, other: RunBytes) -> RunBytes:
        """Two generators in one run."""
        return RunBytes(
            self.cache + other.cache,
            self.constants + other.constants,
            self.step + other.step,
            self.decode + other.decode,
        )


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on a device.

    On the CPU: what the system calls available, within the limit of the process's control group.

    Raises:
        ConfigError: the system does not tell.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = [amount for amount in (_available(), _left_in_group()) if amount is not None]
    if device.type != "cpu" or not found:
        raise ConfigError(f"the free memory of {device} is not known here: give batch_size as a number.")
    return min(found)


def automatic_batch_size(
    generator: ScaleGenerator,
    streams: Iterable[Stream],
    models: Mapping[str, ScaleGenerator] | None = None,
    *,
    wanted: int,
    free: int | None = None,
) -> int:
    """How many samples to run at once: as many as fit, at most 64.

    An image follows from its seed and not from its batch, so the choice changes nothing but time and memory.

    Args:
        generator: that runs.
        streams: of the run, as `hguide.plan.plan` gives them.
        models: lenders by name.
        wanted: samples altogether.
        free: bytes that may be allocated; found out where None.

    Returns:
        A number from 1 to `wanted`.

    Raises:
        ConfigError: a generator whose runs are captured, or free memory that is not known.
    """
    if generator.captured is not None:
        raise ConfigError(
            f"{generator.name}: captured runs keep their memory, so that less is free for every later one: give "
            "batch_size as a number, the same for all batches."
        )
    if not generator.lockstep:
        return 1
    counts: dict[int, int] = {}
    servers = {id(generator): generator}
    for stream in streams:
        server = generator if stream.model == "main" else (models or {})[stream.model]
        servers[id(server)] = server
        counts[id(server)] = counts.get(id(server), 0) + 1

    def predicted(samples: int) -> int | None:
        parts = [servers[key].run_bytes(samples, count) for key, count in counts.items()]
        told = [part for part in parts if part is not None]
        return sum((part for part in told[1:]), told[0]).peak if len(told) == len(parts) else None

    most = min(wanted, _MOST)
    if predicted(1) is None:
        return min(most, _UNTOLD)
    budget = _SHARE * (free_bytes(generator.device) if free is None else free)
    fitting = [samples for samples in range(1, most + 1) if (predicted(samples) or 0) <= budget]
    return max(fitting, default=1)


def _available() -> int | None:
    facts = Path("/proc/meminfo")
    if not facts.is_file():
        return None
    lines = dict(line.split(":", 1) for line in facts.read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None


def _left_in_group() -> int | None:
    try:
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return None
    return None if limit == "max" else max(int(limit) - int(used), 0)

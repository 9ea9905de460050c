"""One process, or several through Lightning Fabric; each does its share of the blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from hguide.errors import ConfigError

__all__ = ["Alone", "FabricProcesses", "Processes", "device_of", "launch", "share"]

T = TypeVar("T")


@runtime_checkable
class Processes(Protocol):
    """The processes of a run.

    Attributes:
        rank: of this one, from 0.
        count: of all.
        device: of this one.
    """

    @property
    def rank(self) -> int: ...

    @property
    def count(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def from_first(self, value: T) -> T:
        """The value that process 0 has; all processes call it."""

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, in order; all processes call it."""

    def part(self) -> None:
        """Nothing more is shared: each process goes on by itself; all processes call it."""


def share(units: Sequence[T], processes: Processes) -> Sequence[T]:
    """The units of this process: every `count`-th."""
    return units[processes.rank :: processes.count]


@dataclass(frozen=True)
class Alone:
    """One process."""

    device: torch.device
    rank: int = 0
    count: int = 1

    def from_first(self, value: T) -> T:
        """The value itself."""
        return value

    def gathered(self, value: T) -> list[T]:
        """The value itself."""
        return [value]

    def part(self) -> None:
        """Nothing to part from."""


@dataclass(frozen=True, eq=False)
class FabricProcesses:
    """Processes that Lightning Fabric started."""

    fabric: Any

    @property
    def rank(self) -> int:
        """Over all machines."""
        return int(self.fabric.global_rank)

    @property
    def count(self) -> int:
        """Over all machines."""
        return int(self.fabric.world_size)

    @property
    def device(self) -> torch.device:
        """Of this process."""
        return self.fabric.device

    def from_first(self, value: T) -> T:
        """Broadcast."""
        return self.fabric.broadcast(value, src=0)

    def gathered(self, value: T) -> list[T]:
        """Gather."""
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, value)
        return found

    def part(self) -> None:
        """Wait for all, then leave the group: a process that ends inside it fails, and takes the others with it."""
        self.fabric.barrier()
        torch.distributed.destroy_process_group()


def device_of(name: str) -> torch.device:
    """The kind of device: "auto" takes a GPU if there is one.

    Raises:
        ConfigError: unknown, or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise ConfigError(f"device is auto, cpu or cuda, got {name!r}; which GPUs, CUDA_VISIBLE_DEVICES says.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is there; use --device auto or cpu.")
    return torch.device(name)


def launch(device: torch.device, devices: int, num_nodes: int) -> Processes:
    """Start the processes: this command again in each, as Lightning Fabric does, or as SLURM and torchrun did.

    Args:
        device: kind of device; with several processes each takes its own.
        devices: processes per machine.
        num_nodes: machines.
    """
    if devices * num_nodes == 1:
        return Alone(device)
    import logging
    from datetime import timedelta

    from lightning.fabric import Fabric
    from lightning.fabric.strategies import DDPStrategy

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    backend = "nccl" if device.type == "cuda" else "gloo"
    # A process that is done first waits for the others, however long they take.
    strategy = DDPStrategy(process_group_backend=backend, timeout=timedelta(days=30))
    accelerator = "cuda" if device.type == "cuda" else "cpu"
    fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy)
    fabric.launch()
    return FabricProcesses(fabric)

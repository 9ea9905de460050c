"""Where images and features of an ablation lie: one file per block of seeds, under the hash of the cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from hguide.errors import ConfigError
from hguide.experiments.ablation.sealed import Sealed, read_sealed, remove_sealed, write_sealed

__all__ = ["Block", "Store"]


@dataclass(frozen=True, eq=False)
class Block:
    """The images of consecutive seeds, sampled together.

    Attributes:
        images: `(n, H, W, 3)`.
        seeds: of the images; the first is a multiple of the block size.
        conditions: class or prompt of each.
        seconds: of sampling and decoding all of them.
        peak_memory_mb: of the device, where it tells.
        network_calls: steps of the run.
    """

    images: UInt8[np.ndarray, "n H W 3"]
    seeds: tuple[int, ...]
    conditions: tuple[Any, ...]
    seconds: float
    peak_memory_mb: float | None = None
    network_calls: int = 0


@dataclass(frozen=True)
class Store:
    """Blocks under OUT/cells/HASH/block_SEED.npz, features under OUT/cells/HASH/NETWORK/block_SEED.npz.

    Attributes:
        folder: OUT.
    """

    folder: Path

    def cell(self, cell_hash: str) -> Path:
        """The folder of a cell."""
        return Path(self.folder) / "cells" / cell_hash

    def block_path(self, cell_hash: str, first: int) -> Path:
        """The file of the block that begins with the seed `first`."""
        return self.cell(cell_hash) / f"block_{first:06d}.npz"

    def features_path(self, cell_hash: str, network: str, first: int) -> Path:
        """The file of the block's features under a network."""
        return self.cell(cell_hash) / network / f"block_{first:06d}.npz"

    def write_block(self, cell_hash: str, block: Block) -> None:
        """Store a block, whole or not at all."""
        facts = {
            "seeds": list(block.seeds),
            "conditions": list(block.conditions),
            "seconds": block.seconds,
            "peak_memory_mb": block.peak_memory_mb,
            "network_calls": block.network_calls,
        }
        write_sealed(self.block_path(cell_hash, block.seeds[0]), Sealed({"images": block.images}, facts))

    def read_block(self, cell_hash: str, first: int) -> Block | None:
        """A stored block, or None where there is none.

        Raises:
            ConfigError: it is damaged.
        """
        path = self.block_path(cell_hash, first)
        found = read_sealed(path)
        if found is None:
            return None
        try:
            facts = found.facts
            seeds, conditions = tuple(facts["seeds"]), tuple(facts["conditions"])
            measured = facts["seconds"], facts["peak_memory_mb"], facts["network_calls"]
            return Block(found.arrays["images"], seeds, conditions, *measured)
        except KeyError as error:
            raise ConfigError(f"{path} is damaged: it has no {error}.") from error

    def remove_block(self, cell_hash: str, first: int) -> None:
        """Remove a block."""
        remove_sealed(self.block_path(cell_hash, first))

    def firsts(self, cell_hash: str) -> Sequence[int]:
        """The first seeds of the blocks that are stored, in order."""
        return sorted(int(path.stem.split("_")[1]) for path in self.cell(cell_hash).glob("block_*.json"))

    def image(self, cell_hash: str, seed: int) -> UInt8[np.ndarray, "H W 3"]:
        """The image of a seed.

        Raises:
            ConfigError: it is not stored, or its block is damaged.
        """
        first = max((each for each in self.firsts(cell_hash) if each <= seed), default=None)
        block = None if first is None else self.read_block(cell_hash, first)
        if block is None or seed not in block.seeds:
            raise ConfigError(f"{self.cell(cell_hash)} holds no image of seed {seed}: run the ablation first.")
        return block.images[block.seeds.index(seed)]

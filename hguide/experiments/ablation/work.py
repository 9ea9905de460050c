"""The units of work: one block of one cell, sampled, looked at by the frozen networks, and stored."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hguide.errors import ConfigError, NumericalError
from hguide.experiments.ablation.plan import Models, PlannedCell
from hguide.experiments.ablation.sealed import Sealed, read_sealed, remove_sealed, write_sealed
from hguide.experiments.ablation.store import Block, Store
from hguide.experiments.extractors import Extractor
from hguide.generate import generate
from hguide.grids import Grid
from hguide.images import to_uint8

__all__ = [
    "Failure",
    "Unit",
    "do_units",
    "features_of_block",
    "features_path",
    "one_line",
    "open_units",
    "sample_block",
    "stored_features",
]

NETWORK_DIGITS = 12


@dataclass(frozen=True)
class Unit:
    """One block of one cell.

    Attributes:
        cell: place of the cell in the plan.
        seeds: of the block.
        images: whether they are to be sampled; else only features are missing.
    """

    cell: int
    seeds: tuple[int, ...]
    images: bool


@dataclass(frozen=True, order=True)
class Failure:
    """Why a unit was not done.

    Attributes:
        cell: place in the plan.
        first: seed of the block.
        error: one line.
    """

    cell: int
    first: int
    error: str


def open_units(
    store: Store,
    cells: Sequence[PlannedCell],
    blocks: Sequence[tuple[int, ...]],
    extractors: Mapping[str, Extractor],
    note: Callable[[str], None],
) -> list[Unit]:
    """What is not stored yet, cell by cell; what is damaged is removed, with a note, and counts as not stored.

    Args:
        store: where it would be.
        cells: of the plan; those with an error are left out.
        blocks: seeds of each block.
        extractors: whose features are wanted.
        note: takes lines for the user.
    """
    found = []
    for place, planned in enumerate(cells):
        if planned.error is not None:
            continue
        for seeds in blocks:
            block = _whole_block(store, planned, seeds, note)
            if block is None:
                found.append(Unit(place, seeds, images=True))
            elif any(stored_features(store, planned.hash, block, each, note) is None for each in extractors.values()):
                found.append(Unit(place, seeds, images=False))
    return found


def _whole_block(
    store: Store, planned: PlannedCell, seeds: tuple[int, ...], note: Callable[[str], None]
) -> Block | None:
    try:
        block = store.read_block(planned.hash, seeds[0])
        if block is not None and block.seeds != seeds:
            raise ConfigError(f"{store.block_path(planned.hash, seeds[0])} is damaged: it holds other seeds.")
    except ConfigError as error:
        note(f"{error} Its {len(seeds)} images are sampled again.")
        store.remove_block(planned.hash, seeds[0])
        return None
    return block


def stored_features(
    store: Store, cell_hash: str, block: Block, extractor: Extractor, note: Callable[[str], None] | None = None
) -> Mapping[str, np.ndarray] | None:
    """A block's features under a network, or None where they are missing, damaged or of other images."""
    path = features_path(store, cell_hash, block, extractor)
    try:
        found = read_sealed(path)
    except ConfigError as error:
        if note is not None:
            note(f"{error} The features are computed again.")
        remove_sealed(path)
        return None
    if found is None or found.facts.get("images") != _images_hash(block):
        return None
    return found.arrays


def features_path(store: Store, cell_hash: str, block: Block, extractor: Extractor) -> Any:
    """Where a block's features are."""
    return store.features_path(cell_hash, f"{extractor.name}-{extractor.hash[:NETWORK_DIGITS]}", block.seeds[0])


def features_of_block(store: Store, cell_hash: str, block: Block, extractors: Mapping[str, Extractor]) -> None:
    """Compute and store what is missing."""
    for extractor in extractors.values():
        if stored_features(store, cell_hash, block, extractor) is None:
            path = features_path(store, cell_hash, block, extractor)
            write_sealed(path, Sealed(extractor.arrays(block.images), {"images": _images_hash(block)}))


def _images_hash(block: Block) -> str:
    return hashlib.sha256(block.images.tobytes()).hexdigest()


def sample_block(models: Models, planned: PlannedCell, seeds: tuple[int, ...], deterministic: bool) -> Block:
    """Sample one block.

    Args:
        models: where the cell's generator and its lenders come from.
        planned: the cell.
        seeds: of the block.
        deterministic: one image per network call.

    Raises:
        HGuideError: what the run refuses.
        NumericalError: logits or images are not finite.
    """
    generator = models.get(planned.cell.model)
    lenders = models.lenders(planned.cell.model, planned.lenders)
    conditions = [planned.condition(seed) for seed in seeds]
    calls: list[int] = []
    device = generator.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    images = generate(
        generator,
        conditions,
        planned.cell.guidance,
        planned.cell.sampler,
        seeds=seeds,
        negative=planned.facts["negative"],
        models=lenders,
        deterministic=deterministic,
        on_step=lambda record: calls.append(len(record.draw.tokens)),
    ).cpu()
    seconds = time.perf_counter() - started
    if not torch.isfinite(images).all():
        raise NumericalError("the decoded images are not finite.")
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    # Each call made tokens for some of the samples; all calls together, for each of them, one per step.
    return Block(to_uint8(images), seeds, tuple(conditions), seconds, memory, sum(calls) // len(seeds))


def do_units(
    units: Sequence[Unit],
    cells: Sequence[PlannedCell],
    models: Models,
    store: Store,
    extractors: Mapping[str, Extractor],
    *,
    deterministic: bool,
    size: Grid,
    done: Callable[[], object],
) -> list[Failure]:
    """Do the units in order; a cell that fails is left, the others go on.

    Args:
        units: of this process.
        cells: of the plan.
        models: where generators come from.
        store: where images and features go.
        extractors: by name.
        deterministic: one image per network call.
        size: of the pictures of the reference.
        done: called after each unit.

    Returns:
        The first failure of each cell.
    """
    failed: dict[int, Failure] = {}
    for unit in units:
        if unit.cell not in failed:
            planned = cells[unit.cell]
            try:
                if unit.images:
                    block: Block | None = sample_block(models, planned, unit.seeds, deterministic)
                    assert block is not None
                    _check_size(block, size)
                    store.write_block(planned.hash, block)
                else:
                    block = store.read_block(planned.hash, unit.seeds[0])
                    assert block is not None
                    _check_size(block, size)
                features_of_block(store, planned.hash, block, extractors)
            except Exception as error:
                # Whatever one cell dies of, out of memory included, the other cells can be done.
                failed[unit.cell] = Failure(unit.cell, unit.seeds[0], one_line(error))
        done()
    return sorted(failed.values())


def _check_size(block: Block, size: Grid) -> None:
    if block.images.shape[1:3] != size:
        made = "x".join(map(str, block.images.shape[1:3]))
        raise ConfigError(
            f"its pictures are {made}, those of the reference {size[0]}x{size[1]}: give real pictures of that size "
            "with `reference: FILE.npz`."
        )


def one_line(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"

"""How long the rest will take: from stored timings, else from one small run per number of streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hguide.experiments.ablation.plan import Models, PlannedCell
from hguide.experiments.ablation.setup import Setup
from hguide.experiments.ablation.store import Store
from hguide.experiments.ablation.work import Unit, one_line, sample_block

__all__ = ["CellEstimate", "dry_run_text", "estimate"]

TIMED_IMAGES = 4


@dataclass(frozen=True)
class CellEstimate:
    """What one cell still needs.

    Attributes:
        planned: the cell.
        images: of its blocks.
        missing: of these, not stored.
        seconds_per_image: None where the cell cannot run.
        error: why it cannot.
    """

    planned: PlannedCell
    images: int
    missing: int
    seconds_per_image: float | None
    error: str | None

    @property
    def seconds(self) -> float:
        """Of what is missing, on one process."""
        return self.missing * (self.seconds_per_image or 0.0)


def estimate(setup: Setup, units: Sequence[Unit], store: Store, device: torch.device) -> list[CellEstimate]:
    """What each cell still needs, and how long that takes on one process.

    Args:
        setup: as prepared.
        units: what is not done.
        store: has timings of what was done.
        device: that samples.
    """
    models = Models(device, setup.models.dtype, setup.models.options)
    timed: dict[tuple[Any, ...], float] = {}
    found = []
    for place, planned in enumerate(setup.cells):
        images = sum(map(len, setup.blocks))
        missing = sum(len(unit.seeds) for unit in units if unit.cell == place and unit.images)
        seconds, error = stored_seconds(store, planned, setup.blocks), planned.error
        missing = images if error else missing
        if seconds is None and error is None:
            try:
                seconds = _timed(setup, planned, models, timed)
            except Exception as failure:
                # As in the run itself, what one cell dies of leaves the others.
                error = one_line(failure)
        found.append(CellEstimate(planned, images, missing, seconds, error))
    return found


def stored_seconds(store: Store, planned: PlannedCell, blocks: Sequence[tuple[int, ...]]) -> float | None:
    """Seconds per image of the blocks that are stored."""
    read = [store.read_block(planned.hash, seeds[0]) for seeds in blocks]
    there = [block for block in read if block is not None]
    return sum(block.seconds for block in there) / sum(len(block.seeds) for block in there) if there else None


def _timed(setup: Setup, planned: PlannedCell, models: Models, timed: dict[tuple[Any, ...], float]) -> float:
    """Seconds per image of a few images; once per model, lenders and number of streams."""
    key = planned.cell.model, tuple(sorted(planned.lenders.values())), planned.streams
    if key not in timed:
        seeds = tuple(range(min(TIMED_IMAGES, setup.config.block)))
        sample_block(models, planned, seeds[:1], setup.config.deterministic)  # What is made once is made here.
        timed[key] = sample_block(models, planned, seeds, setup.config.deterministic).seconds / len(seeds)
    return timed[key]


def dry_run_text(setup: Setup, estimates: Sequence[CellEstimate], processes: int) -> str:
    """The plan as a table, and its sum."""
    wide = max(len("cell"), *(len(each.planned.cell.label) for each in estimates))
    lines = [f"{'cell':<{wide}}  {'hash':<12}  streams  images  there  s/image"]
    for each in estimates:
        streams = "-" if each.planned.streams is None else str(each.planned.streams)
        seconds = "-" if each.seconds_per_image is None else f"{each.seconds_per_image:.3f}"
        there = each.images - each.missing
        lines.append(
            f"{each.planned.cell.label:<{wide}}  {each.planned.hash:<12}  {streams:>7}  {each.images:>6}  "
            f"{there:>5}  {seconds:>7}"
        )
    failed = [each for each in estimates if each.error is not None]
    runnable = [each for each in estimates if each.error is None]
    images, missing = sum(each.images for each in runnable), sum(each.missing for each in runnable)
    minutes = sum(each.seconds for each in runnable) / processes / 60
    extra = sum(map(len, setup.blocks)) - len(setup.seeds)
    whole = f" ({extra} of each cell only fill their block of {setup.config.block})" if extra else ""
    lines.append("")
    lines.append(f"{len(estimates)} cells, {images} images{whole}, {images - missing} there already.")
    lines.append(f"About {minutes:.1f} minutes of sampling on {processes} process{'es' * (processes > 1)}.")
    lines += [f"cannot run: {each.planned.cell.label}: {each.error}" for each in failed]
    return "\n".join(lines)

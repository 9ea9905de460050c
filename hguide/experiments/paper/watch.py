"""Sampling in batches while each step is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hguide.generate import StepRecord, generate
from hguide.generator import ScaleGenerator
from hguide.sampling import Sampler

__all__ = ["watch"]

_T = TypeVar("_T")


def watch(
    seen: Callable[[StepRecord], _T],
    generator: ScaleGenerator,
    conditions: Sequence[Any],
    guidance: str,
    sampler: Sampler,
    seeds: Sequence[int],
    *,
    batch: int = 32,
    progress: Callable[[int], object] = lambda done: None,
) -> list[list[_T]]:
    """What is seen of each step of each batch.

    Args:
        seen: what to keep of a step.
        generator: the model.
        conditions: one per seed.
        guidance: in its text form.
        sampler: of the draws.
        seeds: of the images.
        batch: images at once.
        progress: receives the number of images that each batch finished.
    """
    parts = []
    for first in range(0, len(seeds), batch):
        steps: list[_T] = []

        def look(record: StepRecord, steps: list[_T] = steps) -> None:
            steps.append(seen(record))

        chosen = slice(first, first + batch)
        generate(generator, list(conditions[chosen]), guidance, sampler, seeds=seeds[chosen], on_step=look)
        parts.append(steps)
        progress(len(seeds[chosen]))
    return parts

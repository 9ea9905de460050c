"""Sampling of pairs of a condition and a seed, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hguide.generate import StepRecord, run
from hguide.generator import ScaleGenerator
from hguide.guidance import Guidance
from hguide.noise import SeededNoise
from hguide.sampling import Sampler

__all__ = ["Batch", "Pair", "batches", "sample_batches"]

Pair = tuple[Any, int]
"""A condition and a seed."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch that was sampled.

    Attributes:
        pairs: its conditions and seeds, in order.
        images: `(b, 3, H, W)` in [0, 1].
    """

    pairs: tuple[Pair, ...]
    images: Tensor


def batches(
    generator: ScaleGenerator, pairs: Sequence[Pair], batch_size: int, deterministic: bool
) -> list[tuple[Pair, ...]]:
    """The pairs in batches; one at a time where `deterministic`, or where the generator cannot do several."""
    size = 1 if deterministic or not generator.lockstep else batch_size
    return [tuple(pairs[first : first + size]) for first in range(0, len(pairs), size)]


@torch.no_grad()
def sample_batches(
    generator: ScaleGenerator,
    parts: Sequence[tuple[Pair, ...]],
    guidance: Guidance,
    sampler: Sampler,
    on_step: Callable[[StepRecord], None] | None = None,
    negative: Any = None,
    models: Mapping[str, ScaleGenerator] | None = None,
) -> Iterator[Batch]:
    """Sample batch by batch.

    Like `hguide.generate`, but a seed may come once per condition, and each batch is handed out as soon as it is done.

    Args:
        generator: model.
        parts: as given by `batches`.
        guidance: of all.
        sampler: of all.
        on_step: as in `hguide.generate`.
        negative: content of the null condition, where it is asked for.
        models: lenders by name.
    """
    for pairs in parts:
        conditions = [condition for condition, _ in pairs]
        noise = SeededNoise([seed for _, seed in pairs], generator.device)
        state = run(
            generator,
            conditions,
            guidance,
            sampler,
            noise=noise,
            negative=negative,
            models=models,
            on_step=on_step,
        )
        yield Batch(pairs, generator.decode(state))

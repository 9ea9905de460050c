"""Trial runs of guidances over fixed random maps, and two linear methods to compose with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hguide.grids import Scale, Step
from hguide.guidance import Guidance, LinearMethod
from hguide.streams import COND, UNCOND, Corruption, Stream

ATOL = 1e-5
GRIDS = ((1, 1), (2, 3), (4, 4), (5, 6))


def step_of(k: int, grids=GRIDS) -> Step:
    return Step(k, len(grids), 0, Scale(k, *grids[k]))


def maps(k: int, streams: tuple[Stream, ...], seed: int = 0) -> dict[Stream, Tensor]:
    draw = torch.Generator().manual_seed(seed * 100 + k)
    return {stream: torch.randn(2, *GRIDS[k], 5, generator=draw) for stream in streams}


def run(guidance: Guidance, seed: int = 0, streams: tuple[Stream, ...] = (COND, UNCOND)) -> list[Tensor]:
    memory: Any = {}
    results = []
    for k in range(len(GRIDS)):
        guided, memory = guidance.apply(maps(k, streams, seed), step_of(k), memory)
        results.append(guided.clone())
    return results


@dataclass(frozen=True)
class Weak(LinearMethod):
    """A contrast with another model, as AutoGuidance has it; here to compose with."""

    strength: float = 0.5

    def changes(self, stream: Stream) -> bool:
        return stream.model == "main"

    def contrasts(self, stream: Stream, step: Step) -> dict[Stream, float]:
        return {stream.by("weak"): self.strength}


@dataclass(frozen=True)
class Corrupted(LinearMethod):
    """VPG's contrast."""

    strength: float = 0.7

    def changes(self, stream: Stream) -> bool:
        return stream.prefix == "sampled"

    def contrasts(self, stream: Stream, step: Step) -> dict[Stream, float]:
        return {stream.corrupted(Corruption(0.1)): self.strength}


CORRUPT = COND.corrupted(Corruption(0.1))
FOUR = (COND, UNCOND, CORRUPT, CORRUPT.null)

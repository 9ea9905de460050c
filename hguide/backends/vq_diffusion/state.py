"""What changes while VQ-Diffusion samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from hguide.noise import Noise

__all__ = ["VQDiffusionState"]


@dataclass
class VQDiffusionState:
    """One run.

    Attributes:
        tokens: x_t `(b, L)` from 0 to K, K being the mask.
        conditions: "given" and, where a stream needs it, "null" -> labels `(b,)` or text embeddings `(b, s, c)`.
        noise: of the run.
        index: next step.
        call: next network call of that step.
    """

    tokens: Int[Tensor, "b l"]
    conditions: Mapping[str, Tensor]
    noise: Noise
    index: int = 0
    call: int = 0

"""What the methods share that contrast the given condition with the null one, and are not linear."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.grids import Step
from hguide.guidance.base import Predictor
from hguide.guidance.null_strength import NullStrength
from hguide.streams import Stream

__all__ = ["NullContrast", "widened"]


@dataclass(frozen=True)
class NullContrast(NullStrength):
    """A method in place of CFG: at t = 0 the identity, which asks for nothing; its linear shadow is CFG's.

    Args:
        strength: see `NullStrength`.
        w: see `NullStrength`.
        schedule: see `NullStrength`.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: both strength and w, or a strength that is not finite.
    """

    def needs(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """The null stream, where t is not 0."""
        return (stream.null,) if self.t(step) != 0.0 else ()

    def shadow(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """The weights of CFG."""
        t = self.t(step)
        return {stream: 1.0 + t, stream.null: -t} if t != 0.0 else {stream: 1.0}

    @abstractmethod
    def contrast(
        self, given: Float[Tensor, "*place v"], null: Float[Tensor, "*place v"], t: float
    ) -> Float[Tensor, "*place v"]:
        """Guided logits of an acting step.

        Args:
            given: logits under the condition, `(b, h, w, v)` or `(b, n, v)`, at least float32.
            null: the same under the null condition.
            t: strength, not 0.

        Returns:
            New logits.
        """

    def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
        """The contrast, in float32 at least."""
        logits, t = f(stream), self.t(step)
        if t == 0.0:
            return logits, None
        return self.contrast(widened(logits), widened(f(stream.null)), t).to(logits.dtype), None


def widened(logits: Float[Tensor, "*place v"]) -> Float[Tensor, "*place v"]:
    """Half precision as float32, anything wider as it is."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))

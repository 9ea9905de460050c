"""Linear methods whose contrast is the same stream in a changed forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hguide.guidance.contrast import Contrast
from hguide.streams import Perturbation, Stream

__all__ = ["PerturbedContrast"]


@dataclass(frozen=True)
class PerturbedContrast(Contrast):
    """l' = l + s (l - l_perturbed), where the forward pass is changed in some layers.

    Args:
        strength: s; a number, multiplied by the schedule, or a schedule or one number per step used as it is.
        layers: the changed layers, from 0; none leaves the choice to the generator (VAR: the middle third).
        schedule: unit schedule of a number; constant by default.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: a strength that is not finite, or layers that are negative or named twice.
    """

    layers: Sequence[int] = ()

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        if isinstance(self.layers, list):
            object.__setattr__(self, "layers", tuple(self.layers))
        super().__post_init__()

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = super().problems()
        wrong = any(isinstance(layer, bool) or not isinstance(layer, int) or layer < 0 for layer in self.layers)
        if wrong or len(set(self.layers)) < len(self.layers):
            found.append(f"layers are different whole numbers from 0, got {list(self.layers)}")
        return found

    def changes(self, stream: Stream) -> bool:
        """Only streams in the forward pass as it is."""
        return stream.perturb is None

    def options(self) -> tuple[tuple[str, float], ...]:
        """Numbers that the change takes."""
        return ()

    def contrast(self, stream: Stream) -> Stream:
        """The stream in the changed forward pass."""
        return stream.perturbed(Perturbation(self.kind, tuple(sorted(self.layers)), self.options()))

"""Autoguidance: the contrast with a weaker model."""

from __future__ import annotations

from dataclasses import dataclass

from hguide.guidance.contrast import Contrast
from hguide.streams import Stream

__all__ = ["AutoGuidance"]


@dataclass(frozen=True)
class AutoGuidance(Contrast):
    """Autoguidance: l' = l + t (l - l_weak), the contrast with a weaker model of the same tokens.

    The weaker model is lent to a run by name, `hguide.generate(..., models={"weak": other})`; it must predict the same
    tokens on the same scales. In the convention of diffusers, weak + w (l - weak), t = w - 1. With classifier-free
    guidance in front (`cfg | autoguidance`) the weaker model is guided, too.

    Args:
        strength: t; a number, multiplied by the schedule, or a schedule or one number per step used as it is.
        model: name under which the weaker model is lent.
        schedule: unit schedule of a number; constant by default.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: a strength that is not finite, or the model "main".

    Source: arXiv 2406.02507; the linear rule is *stated* (diffusers, `AutoGuidance`). *Reconstructed*: for VAR the
    weaker model is a smaller one of the same tokenizer.
    """

    model: str = "weak"

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = super().problems()
        if self.model == "main":
            found.append("model is the name of a lender; 'main' is the guided model itself")
        return found

    def changes(self, stream: Stream) -> bool:
        """Only streams of the main model."""
        return stream.model == "main"

    def contrast(self, stream: Stream) -> Stream:
        """The same stream by the weaker model."""
        return stream.by(self.model)

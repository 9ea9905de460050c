"""Visual Prefix Guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hguide.errors import ConfigError, near_matches
from hguide.grids import Step
from hguide.guidance.contrast import Contrast
from hguide.schedules import Schedule
from hguide.streams import Corruption, Stream

__all__ = ["VPG"]

# Name, strength, proportion.
_PUBLISHED = {
    "var-d16": (3.0, 0.1),
    "var-d20": (2.4, 0.1),
    "var-d24": (1.8, 0.1),
    "var-d30": (1.3, 0.1),
    "infinity-2b": (0.2, 0.1),
    "infinitystar-8b": (0.25, 0.05),
}


@dataclass(frozen=True)
class VPG(Contrast):
    """Visual Prefix Guidance: l' = l + lambda (l - l_corrupted), the contrast with a corrupted prefix.

    In the corrupted stream a part of the prefix positions takes the whole input embedding of another position of the
    same scale, which keeps the statistics of each scale and breaks what belongs together. With classifier-free
    guidance in front (`cfg | vpg`) both streams are guided first: {given, null} x {sampled, corrupted}, four streams.
    The first step has no prefix and is left as it is. Draws always come from the guided logits and feed all streams.

    Published strengths (`VPG.published`): VAR-d16 3.0, d20 2.4, d24 1.8, d30 1.3, Infinity-2B 0.2, each with
    proportion 0.1; InfinityStar-8B 0.25 with 0.05.

    Args:
        strength: lambda; a number, multiplied by the schedule, or a schedule or one number per step used as it is.
        proportion: part of the prefix positions that is replaced, in [0, 1].
        redraw: replace other positions at every step, for which the prefix is encoded anew; False replaces the inputs
            of a scale once, when they enter the cache.
        queries: corrupt the inputs of the current step as well.
        schedule: unit schedule of a number; constant, as far as reported.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: a strength that is not finite, or a proportion out of range.

    Source: arXiv 2605.30317, rule, strengths and proportions *second-hand* (a digest of the paper). *Reconstructed*:
    `redraw=False` (the digest draws anew at every step) and whether the step's own inputs are corrupted (`queries`).
    """

    strength: float | Schedule | Sequence[float] = 1.3
    proportion: float = 0.1
    redraw: bool = False
    queries: bool = False

    @classmethod
    def published(cls, model: str) -> VPG:
        """The published strength and proportion for a model.

        Args:
            model: "var-d16", "var-d20", "var-d24", "var-d30", "infinity-2b" or "infinitystar-8b".

        Raises:
            ConfigError: nothing is published for it.
        """
        if model not in _PUBLISHED:
            raise ConfigError(f"VPG: no published strength for {model!r}: {near_matches(model, _PUBLISHED)}")
        strength, proportion = _PUBLISHED[model]
        return cls(strength, proportion)

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = super().problems()
        if not 0.0 <= self.proportion <= 1.0:
            found.append(f"proportion is a part between 0 and 1, got {self.proportion}")
        return found

    def changes(self, stream: Stream) -> bool:
        """Only streams after the sampled prefix."""
        return stream.prefix == "sampled"

    def contrast(self, stream: Stream) -> Stream:
        """The stream after a corrupted prefix; the stream itself where nothing is replaced."""
        return stream.corrupted(Corruption(self.proportion, redraw=self.redraw, queries=self.queries))

    def contrasts(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """{corrupted: lambda}; nothing at the first step, and nothing where the proportion is 0."""
        if step.index == 0 or self.contrast(stream) == stream:
            return {}
        return super().contrasts(stream, step)

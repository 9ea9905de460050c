"""Classifier-free guidance."""

from __future__ import annotations

from dataclasses import dataclass

from hguide.grids import Step
from hguide.guidance.base import LinearMethod
from hguide.guidance.null_strength import NullStrength
from hguide.streams import Stream

__all__ = ["CFG"]


@dataclass(frozen=True)
class CFG(NullStrength, LinearMethod):
    """Classifier-free guidance: l' = (1 + t) l(given) - t l(null).

    `cfg(s)` is VAR's ramp, t = s k/(K-1); `cfg(w=w)` the rule of diffusers and Infinity, u + w (c - u), so t = w - 1.

    Args:
        strength: s; a number, multiplied by the schedule, or a schedule or one number per step used as it is.
            1.5 where neither `strength` nor `w` is given.
        w: in place of `strength`; w = 1 is no guidance.
        schedule: unit schedule of a number; the ramp k/(K-1) for `strength`, constant for `w`.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: both strength and w, or a strength that is not finite.

    Source: arXiv 2207.12598; both rules are *stated*: VAR code (arXiv 2404.02905), `models/var.py`; diffusers.
    """

    def contrasts(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """{null: t}."""
        return {stream.null: self.t(step)}

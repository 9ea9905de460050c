"""Adaptive projected guidance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import near_matches
from hguide.grids import Step
from hguide.guidance.base import Predictor
from hguide.guidance.carried import carried
from hguide.guidance.gauge import gauge_shift
from hguide.guidance.null_contrast import widened
from hguide.guidance.reduced_contrast import ReducedContrast
from hguide.priors import Bilinear, Prior
from hguide.streams import Stream

__all__ = ["APG"]

_BASES = ("given", "null")


@dataclass(frozen=True)
class APG(ReducedContrast):
    """APG: l' = c + t D, the contrast D = c - u with its part along c turned down.

    In turn: D += momentum P D_prev, P carrying the contrast of the step before to this grid; D *= min(1, radius/|D|);
    D += (eta - 1) <D, c>/|c|^2 c. With eta = 1, no momentum and no radius it is CFG.

    Args:
        strength: see `NullContrast`.
        w: see `NullContrast`.
        schedule: see `NullContrast`.
        gauge: of the inner products; see `ReducedContrast`.
        reduction: "token", or "map" as for images of diffusion.
        eta: what is left of the part along c; 1 keeps it.
        radius: largest norm of D; 0 for no limit. Norms of logits are not those of images: no published value holds.
        momentum: of the contrast, in (-1, 1); 0 is off. Negative values push away from the contrast before.
        prior: P.
        base: "given", c + t D, which is the identity at t = 0; or "null", u + (1 + t) D. They differ where D is not
            c - u.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: an option out of range; what `ReducedContrast` raises.

    Source: arXiv 2410.02416; projection, radius, momentum and `base=null` *stated* in diffusers' guider, for images
    of diffusion. *Reconstructed*: on logits, the gauge, the reduction per token, `base=given`, and momentum across
    grids.
    """

    eta: float = 0.0
    radius: float = 0.0
    momentum: float = 0.0
    prior: Prior = field(default_factory=Bilinear)
    base: str = "given"

    remembers: ClassVar[bool] = True

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = super().problems()
        if not abs(self.eta) < float("inf"):
            found.append(f"eta is finite, got {self.eta!r}")
        if not 0.0 <= self.radius < float("inf"):
            found.append(f"radius is a finite number >= 0, got {self.radius!r}")
        if not -1.0 < self.momentum < 1.0:
            found.append(f"momentum lies in (-1, 1), got {self.momentum!r}")
        if self.base not in _BASES:
            found.append(f"unknown base {self.base!r}: {near_matches(self.base, _BASES)}")
        return found

    def needs(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """The null stream, where it is used: at t = 0 for momentum and for `base="null"` only."""
        idle = self.base == "given" and self.momentum == 0.0
        return super().needs(stream, step) if idle else (stream.null,)

    def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
        """The projected contrast, and the contrast to remember with what the gauge takes off it."""
        logits = f(stream)
        if not self.acts(stream, step) or not self.needs(stream, step):
            return logits, remembered
        given, null, t = widened(logits), widened(f(stream.null)), self.t(step)
        difference, shift = given - null, gauge_shift(given, self.gauge) - gauge_shift(null, self.gauge)
        if self.momentum != 0.0 and remembered is not None:
            difference = difference + self.momentum * carried(self.prior, remembered[0], step)
            shift = shift + self.momentum * carried(self.prior, remembered[1], step)
        kept = (difference, shift) if self.momentum != 0.0 and step.positions is None else remembered
        if t == 0.0 and self.base == "given":
            return logits, kept
        return self._guided(given, null, difference, shift, t).to(logits.dtype), kept

    def contrast(
        self, given: Float[Tensor, "*place v"], null: Float[Tensor, "*place v"], t: float
    ) -> Float[Tensor, "*place v"]:
        """The guided logits without momentum."""
        shift = gauge_shift(given, self.gauge) - gauge_shift(null, self.gauge)
        return self._guided(given, null, given - null, shift, t)

    def _guided(self, given: Tensor, null: Tensor, difference: Tensor, shift: Tensor, t: float) -> Tensor:
        if self.radius > 0.0:
            size = self.norm(difference - shift).clamp_min(torch.finfo(given.dtype).tiny ** 0.5)
            factor = (self.radius / size).clamp_max(1.0)
            difference, shift = factor * difference, factor * shift
        if self.eta != 1.0:
            c = self.fixed(given)
            squared = self.inner(c, c).clamp_min(torch.finfo(c.dtype).tiny)
            difference = difference + (self.eta - 1.0) * self.inner(difference - shift, c) / squared * given
        return given + t * difference if self.base == "given" else null + (1.0 + t) * difference

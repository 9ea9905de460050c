"""Generalised hierarchical guidance: one term of the family that contains SSG, CFG, VPG and FDG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from hguide.errors import near_matches
from hguide.grids import Step
from hguide.guidance.bands import Bands
from hguide.guidance.base import Method, Predictor, combine
from hguide.guidance.carried import carried
from hguide.guidance.null_contrast import widened
from hguide.guidance.null_strength import Strength, strength_problems
from hguide.priors import DSE, LowPass, Prior
from hguide.schedules import Constant, Linear, Ramp, Schedule, strength_at
from hguide.streams import Corruption, Stream

__all__ = ["Family"]

_SOURCES = ("previous", "null", "corrupted", "corrupted_null")


@dataclass(frozen=True)
class Family(Method):
    """One term of l' = l + sum_j W_j(k) (l - P_j s_j), W_j = sum_b beta_jb(k) Pi_b over bands of spatial frequency.

    Terms add up by `+`: `family(1.5, source=null, bands=[0.5, 1.5], edges=[0.5]) + family(0.8)`. The source s is
    the map of steps before, carried to this grid by a prior P, or another stream of the same step (P = I). With
    beta_b = strength(k) bands_b(k) the term is strength (sum_b bands_b Pi_b) sum_j lags_j (l_k - P l_{k-j}), or
    strength (sum_b bands_b Pi_b) (l - s). Negative weights are allowed.

    Special cases: `family` is SSG; `source=null` is CFG, with the edges 1/4, 1/2, ... FDG in the DCT; with the
    streams null, corrupted and corrupted_null and the strengths t (1 + lambda), lambda (1 + t) and -lambda t it is
    VPG after CFG.

    Args:
        strength: beta or t, of any sign; a number, multiplied by the schedule, or a schedule or one number per step
            used as it is.
        source: "previous", "null", "corrupted" (prefix), or "corrupted_null".
        prior: P, for "previous".
        schedule: unit schedule of a number; where none is given, linear for "previous", the ramp for "null", constant
            for the corrupted streams.
        lags: for "previous": weights of the maps 1, 2, ... steps back, each carried to this grid by P; a map that is
            not there yet counts for nothing.
        edges: between the bands, as parts of the Nyquist frequency in (0, 1), ascending. The band below edge e holds
            the first ceil(e n) orthonormal DCT frequencies of an axis of n, so that small maps have fewer bands.
        bands: factor of each band, the lowest first; a number or a schedule, one more than edges.
        corruption: part of the prefix that is replaced, for the corrupted streams.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: an option out of range, or another number of bands than edges + 1.

    Source: a family of this project, *reconstructed* from arXiv 2602.05534 (eq. 8), 2207.12598, 2605.30317 and
    2506.19713. The trust region in the Kullback-Leibler divergence is not part of it.
    """

    strength: Strength = 1.0
    source: str = "previous"
    prior: Prior = field(default_factory=DSE)
    schedule: Schedule | None = None
    lags: Sequence[float] = (1.0,)
    edges: Sequence[float] = ()
    bands: Sequence[float | Schedule] = (1.0,)
    corruption: float = 0.1

    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("lags", "edges", "bands"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if isinstance(self.strength, list):
            object.__setattr__(self, "strength", tuple(self.strength))
        super().__post_init__()

    @property
    def linear(self) -> bool:  # type: ignore[override]
        """True for another stream in one band: a weighted sum of streams."""
        return self.source != "previous" and len(self.bands) == 1

    @property
    def partial(self) -> bool:  # type: ignore[override]
        """True for one band; more need the whole map."""
        return len(self.bands) == 1

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = [*super().problems(), *strength_problems("strength", self.strength)]
        if self.source not in _SOURCES:
            found.append(f"unknown source {self.source!r}: {near_matches(self.source, _SOURCES)}")
        if not self.lags or not all(map(math.isfinite, self.lags)):
            found.append(f"lags are finite numbers, at least one, got {list(self.lags)}")
        inner = [0.0, *self.edges, 1.0]
        if not all(low < high for low, high in pairwise(inner)):
            found.append(f"edges ascend within (0, 1), got {list(self.edges)}")
        if len(self.bands) != len(self.edges) + 1:
            found.append(f"{len(self.edges)} edges make {len(self.edges) + 1} bands, got {len(self.bands)} factors")
        if not all(math.isfinite(band) for band in self.bands if not isinstance(band, Schedule)):
            found.append(f"bands are finite numbers or schedules, got {list(self.bands)}")
        if not 0.0 < self.corruption <= 1.0:
            found.append(f"corruption is a part in (0, 1], got {self.corruption!r}")
        return found

    def changes(self, stream: Stream) -> bool:
        """Not streams under the null condition or after a corrupted prefix, where that is what the source changes."""
        if "null" in self.source and stream.condition != "given":
            return False
        return "corrupted" not in self.source or stream.prefix == "sampled"

    def factors(self, step: Step) -> tuple[float, ...]:
        """beta_b at a step, the lowest band first."""
        default = {"previous": Linear(), "null": Ramp()}.get(self.source, Constant())
        strength = strength_at(self.strength, self.schedule or default, step)
        return tuple(strength * (band(step) if isinstance(band, Schedule) else float(band)) for band in self.bands)

    def needs(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """The stream of the source, where any band has a factor."""
        other = self._other(stream, step)
        return (other,) if other != stream and any(self.factors(step)) else ()

    def shadow(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """The weights of the mean over the bands; exact where there is one."""
        if not self.needs(stream, step):
            return {stream: 1.0}
        factors = self.factors(step)
        t = sum(factors) / len(factors)
        return {stream: 1.0 + t, self._other(stream, step): -t}

    def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
        """The term added, and for "previous" the maps to remember, oldest first."""
        logits = f(stream)
        acts = self.acts(stream, step)
        if self.source == "previous":
            maps: tuple[Tensor, ...] = remembered or ()
            guided = self._extrapolated(logits, maps, step) if acts and maps else logits
            if step.positions is not None:
                return guided, remembered
            return guided, (*maps, logits.clone() if guided is logits else logits)[-len(self.lags) :]
        if not acts or not self.needs(stream, step):
            return logits, None
        if self.linear:
            return combine(f, stream, self.shadow(stream, step)), None
        wide = widened(logits)
        return self._added(wide, wide - widened(f(self._other(stream, step))), step).to(logits.dtype), None

    def _other(self, stream: Stream, step: Step) -> Stream:
        # The first step has no prefix to corrupt.
        if "corrupted" in self.source and step.index > 0:
            stream = stream.corrupted(Corruption(self.corruption))
        return stream.null if "null" in self.source else stream

    def _extrapolated(self, logits: Tensor, maps: tuple[Tensor, ...], step: Step) -> Tensor:
        wide = widened(logits)
        known = [(lag, past) for lag, past in zip(self.lags, reversed(maps), strict=False) if lag != 0.0]
        if not known or not any(self.factors(step)):
            return logits
        change = sum(lag for lag, _ in known) * wide
        for lag, past in known:
            change.sub_(widened(carried(self.prior, past, step)), alpha=lag)
        return self._added(wide, change, step).to(logits.dtype)

    def _added(self, logits: Tensor, change: Tensor, step: Step) -> Tensor:
        """l + W change."""
        factors = self.factors(step)
        if len(set(factors)) == 1:
            return torch.add(logits, change, alpha=factors[0])
        mix = Bands(factors, tuple(LowPass(float(edge)) for edge in self.edges))
        return logits + mix(change, (logits.shape[1], logits.shape[2]))

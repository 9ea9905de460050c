"""Information-Grounding Guidance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.autocast import no_autocast
from hguide.grids import Step
from hguide.guidance.base import Method, Predictor
from hguide.guidance.gauge import fix_gauge, gauge_problems
from hguide.guidance.null_contrast import widened
from hguide.guidance.null_strength import Strength, strength_problems
from hguide.guidance.token_attention import add_attention
from hguide.schedules import Ramp, Schedule, strength_at
from hguide.streams import Stream

__all__ = ["IGG"]


@dataclass(frozen=True)
class IGG(Method):
    """Information-Grounding Guidance: l' = u + (1 + r_k w) g with g = softmax(n n^T / sqrt(v)) n and n = c - u.

    The contrast n of given and null logits attends to itself over the tokens of the step. `igg(w, cfg=s)` is the
    mixed form, l' = u + (1 + r_k s) n + (1 + r_k w) g, in which both ones count. Where each token's largest inner
    product is by far with itself, g = n and IGG is CFG; otherwise a token takes the row that it aligns with most; for
    vanishing n, g is the mean over the tokens. Its linear shadow is CFG's. Computed in float32, block by block of
    query rows. Needs full maps: every token attends to all.

    Args:
        strength: w; a number, multiplied by the schedule, or a schedule or one number per step used as it is.
        cfg: s, likewise; none leaves the term out.
        schedule: unit schedule r of the numbers; the ramp k/(K-1) in the authors' code.
        gauge: of the logits that make n: "raw" (the authors' code), "centred" or "log_softmax"; see `gauge_shift`.
        temperature: in place of sqrt(v). On logit differences d of independent bits, two channels (-d/2, d/2) each
            mean `temperature` = 2 sqrt(2 bits) and the raw gauge.
        window: odd side of the square of tokens that a token attends to; 0 is the whole map.
        cross: strength of the cross-step term, multiplied by the schedule:
            n_k += cross r_k softmax(n_k n_{k-1}^T / sqrt(v)) n_{k-1} before all else; 0 is off.
        chunk: query rows per block; 0 chooses by memory. The result does not depend on it but for rounding.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: a strength that is not finite, an unknown gauge, an even window, or another option out of range.

    Source: arXiv 2509.23876; the formula, raw gauge, ramp and mixed form are *stated* in the authors' code, which is
    older than the paper. `cross` with strength 1 is *stated* in an older version of it, switched off there;
    *reconstructed*: that it keeps n_{k-1} as it was before its own cross-step term. `window`: *second-hand*, suggested
    as future work; its square form is *reconstructed*. `temperature` and the other gauges are options of this project.
    """

    strength: Strength = 3.0
    cfg: Strength | None = None
    schedule: Schedule = field(default_factory=Ramp)
    gauge: str = "raw"
    temperature: float | None = None
    window: int = 0
    cross: float = 0.0
    chunk: int = 0

    partial: ClassVar[bool] = False
    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("strength", "cfg"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = [*super().problems(), *gauge_problems(self.gauge)]
        for name in ("strength", "cfg", "cross"):
            found += strength_problems(name, getattr(self, name))
        if self.temperature is not None and not 0.0 < self.temperature < math.inf:
            found.append(f"temperature is positive and finite, got {self.temperature!r}")
        if self.window < 0 or (self.window and self.window % 2 == 0):
            found.append(f"window is an odd number of tokens, or 0 for the whole map, got {self.window!r}")
        if self.chunk < 0:
            found.append(f"chunk is a number of rows, or 0, got {self.chunk!r}")
        return found

    def changes(self, stream: Stream) -> bool:
        """Only streams under the given condition."""
        return stream.condition == "given"

    def needs(self, stream: Stream, step: Step) -> tuple[Stream, ...]:
        """The null stream."""
        return (stream.null,)

    def shadow(self, stream: Stream, step: Step) -> dict[Stream, float]:
        """The weights of CFG: those of the limit g = n."""
        contrast, grounded = self._factors(step)
        weight = contrast + grounded
        return {stream: weight, stream.null: 1.0 - weight}

    def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
        """The guided logits; with `cross` also n for the step after."""
        logits = f(stream)
        if not self.acts(stream, step):
            return logits, remembered
        given, null = widened(logits), widened(f(stream.null))
        own = fix_gauge(given, self.gauge) - fix_gauge(null, self.gauge)
        signal, kept = own, own if self.cross != 0.0 else None
        if self.cross != 0.0 and remembered is not None:
            across = strength_at(self.cross, self.schedule, step)
            signal = self._add_attention(own.clone(), own, remembered, across)
        contrast, grounded = self._factors(step)
        total = torch.add(null, signal, alpha=contrast)
        return self._add_attention(total, signal, signal, grounded).to(logits.dtype), kept

    def grounded(self, signal: Float[Tensor, "b h w v"]) -> Float[Tensor, "b h w v"]:
        """g = softmax(n n^T / sqrt(v)) n, with the window and temperature of this method.

        Args:
            signal: n, the contrast of the given and the null logits in a gauge of choice.
        """
        return self._add_attention(torch.zeros_like(signal), signal, signal, 1.0)

    def _factors(self, step: Step) -> tuple[float, float]:
        """Of n and of g."""
        grounded = 1.0 + strength_at(self.strength, self.schedule, step)
        return (0.0 if self.cfg is None else 1.0 + strength_at(self.cfg, self.schedule, step)), grounded

    def _add_attention(self, total: Tensor, queries: Tensor, keys: Tensor, strength: float) -> Tensor:
        height, width, channels = queries.shape[1:]
        rows = keys.flatten(1, 2)
        # A map of the step before lies on another grid, where no window is defined.
        window = ((height, width), self.window) if self.window and keys is queries else None
        temperature = math.sqrt(channels) if self.temperature is None else self.temperature
        with no_autocast(total.device):
            return add_attention(
                total.flatten(1, 2),
                queries.flatten(1, 2),
                rows,
                rows,
                strength=strength,
                temperature=temperature,
                rows=self.chunk,
                window=window,
            ).unflatten(1, (height, width))

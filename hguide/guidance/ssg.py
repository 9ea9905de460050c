"""Scaled Spatial Guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from hguide.errors import ConfigError, near_matches
from hguide.grids import Step
from hguide.guidance.base import Method, Predictor
from hguide.guidance.carried import carried
from hguide.priors import DSE, LinearPrior, Prior, extrapolate, extrapolate_rows, operator
from hguide.schedules import Linear, Schedule, strength_at
from hguide.streams import Stream

__all__ = ["SSG"]

_REMEMBER = ("input", "output", "mean")
_POSITIONS = ("all", "masked", "visible")


@dataclass(frozen=True)
class SSG(Method):
    """Scaled Spatial Guidance: l'_k = l_k + beta_k (l_k - P l_{k-1}), and l'_0 = l_0.

    P carries the logits of the step before to the grid of this one. A linear prior is a matrix, computed once in
    float64 by the library that defines it. A step multiplies by it, or by its two factors where that is quicker, and
    adds the update in the same product. On a partial map the rows of P at its positions act; partial maps are not
    remembered.

    Args:
        strength: beta; a number >= 0, multiplied by the schedule, or a schedule or one number per step used as it is.
            The paper prints no value.
        prior: P; the paper's is `dse`.
        schedule: unit schedule of a number; the paper's is linear, beta_k = beta (1 - k/K).
        remember: what l_{k-1} is: "input" (before this method, after those in front of it), "output" (after this
            method), or "mean" (m_k = decay P m_{k-1} + (1 - decay) l_k).
        stride: how many remembered maps back l_{k-1} lies; the method waits until there are so many.
        decay: of the running mean.
        positions: where it acts: "all", or "masked" or "visible" ones alone, for generators whose steps share one grid
            and tell which tokens are known (VQ-Diffusion). All positions are remembered.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: a negative strength, or an option out of range.

    Source: arXiv 2602.05534, eq. 8 and algorithms 1-2. *Reconstructed*: the logits are those after classifier-free
    guidance; `remember`, `stride`, `decay` and `positions` are options of this project.
    """

    strength: float | Schedule | Sequence[float] = 1.0
    prior: Prior = field(default_factory=DSE)
    schedule: Schedule = field(default_factory=Linear)
    remember: str = "input"
    stride: int = 1
    decay: float = 0.5
    positions: str = "all"

    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.strength, list):
            object.__setattr__(self, "strength", tuple(self.strength))
        super().__post_init__()

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = super().problems()
        numbers = self.strength if isinstance(self.strength, tuple) else (self.strength,)
        if any(isinstance(number, int | float) and not 0.0 <= number < float("inf") for number in numbers):
            found.append(f"strength is a finite number >= 0, got {self.strength!r}")
        if self.remember not in _REMEMBER:
            found.append(f"unknown remember {self.remember!r}: {near_matches(self.remember, _REMEMBER)}")
        if self.positions not in _POSITIONS:
            found.append(f"unknown positions {self.positions!r}: {near_matches(self.positions, _POSITIONS)}")
        if self.stride < 1:
            found.append(f"stride is at least 1, got {self.stride}")
        if not 0.0 <= self.decay < 1.0:
            found.append(f"decay lies in [0, 1), got {self.decay}")
        return found

    def beta(self, step: Step) -> float:
        """The strength at a step.

        Raises:
            ConfigError: the schedule gives a negative strength.
        """
        beta = strength_at(self.strength, self.schedule, step)
        if beta < 0.0:
            raise ConfigError(f"SSG: strength is >= 0, but its schedule gives {beta:g} at step {step.index}.")
        return beta

    def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
        """The update, and the maps to remember, oldest first."""
        logits = f(stream)
        maps: tuple[Tensor, ...] = remembered or ()
        beta = self.beta(step) if self.on(step) else 0.0
        guided = logits
        if beta != 0.0 and len(maps) == self.stride:
            guided = self._where(step, self._extrapolate(logits, maps[0], beta, step), logits)
        if step.positions is not None:
            return guided, remembered
        return guided, (*maps, self._kept(logits, guided, maps, step))[-self.stride :]

    def _extrapolate(self, logits: Tensor, previous: Tensor, beta: float, step: Step) -> Tensor:
        if isinstance(self.prior, LinearPrior):
            source = (previous.shape[1], previous.shape[2])
            matrix = operator(self.prior, source, step.grid, step, logits.device, logits.dtype)
            if step.positions is None:
                return extrapolate(logits, previous, matrix, beta)
            return extrapolate_rows(logits, step.positions, previous, matrix, beta)
        return logits + beta * (logits - carried(self.prior, previous, step))

    def _where(self, step: Step, guided: Tensor, logits: Tensor) -> Tensor:
        """The guided logits at the chosen positions, the given ones elsewhere."""
        if self.positions == "all":
            return guided
        if step.visible is None:
            raise ConfigError(
                f"SSG: positions={self.positions} needs a generator that tells which tokens are known (VQ-Diffusion); "
                "this one does not, so use positions=all."
            )
        acts = step.visible if self.positions == "visible" else ~step.visible
        if step.positions is not None:
            acts = acts.gather(1, step.positions)
        return torch.where(acts.view(*logits.shape[:-1], 1), guided, logits)

    def _kept(self, logits: Tensor, guided: Tensor, maps: tuple[Tensor, ...], step: Step) -> Tensor:
        if self.remember == "output":
            return guided.clone()
        if self.remember == "mean" and maps:
            return self.decay * self.prior(maps[-1], step.grid, step) + (1.0 - self.decay) * logits
        return logits.clone() if guided is logits else logits

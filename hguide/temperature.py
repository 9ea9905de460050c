"""Temperatures that depend on the logits: functions for `Sampler(temperature=...)`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import ConfigError

__all__ = ["EntropyTemperature"]


@dataclass(frozen=True)
class EntropyTemperature:
    """Entropy-aware temperature: T_i = t0 exp(-H_i / alpha) + theta for each token.

    H_i is the entropy in nats of the distribution that the guided and filtered logits of token i make. Sure tokens
    are drawn at up to t0 + theta, those with many candidates at down to theta. Needs categorical logits.

    Args:
        t0: height of the temperature above theta where the entropy is 0, >= 0.
        alpha: entropy over which it falls by a factor e, in nats, positive.
        theta: lowest temperature, positive.

    Raises:
        ConfigError: a number out of range.

    Source: arXiv 2510.09012; formula, its three numbers and its place after guidance and filters are *stated* in the
    authors' code, for raster-scan generators. *Reconstructed*: the same numbers on scale-wise ones.

    Example:
        >>> from hguide.sampling import Sampler
        >>> Sampler(temperature=EntropyTemperature(theta=0.8), top_k=600).top_k
        600
    """

    t0: float = 2.5
    alpha: float = 3.0
    theta: float = 0.6

    def __post_init__(self) -> None:
        problems = []
        if not 0.0 <= self.t0 < math.inf:
            problems.append(f"t0 is a finite number >= 0, got {self.t0!r}")
        for name in ("alpha", "theta"):
            if not 0.0 < getattr(self, name) < math.inf:
                problems.append(f"{name} is positive and finite, got {getattr(self, name)!r}")
        if problems:
            raise ConfigError("EntropyTemperature: " + "; ".join(problems) + ".")

    def __call__(self, logits: Float[Tensor, "b n c"]) -> Float[Tensor, "b n 1"]:
        """The temperature of each token.

        Args:
            logits: of the candidates, -inf where dropped.
        """
        entropy = torch.special.entr(logits.softmax(-1)).sum(-1, keepdim=True)
        return self.t0 * torch.exp(-entropy / self.alpha) + self.theta

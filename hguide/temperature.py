"""Temperatures that depend on the logits: functions for `Sampler(temperature=...)`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hguide import schedules
from hguide.errors import ConfigError, near_matches
from hguide.guidance.parse import parse_entry, parse_schedule, text_of
from hguide.registry import Registry
from hguide.schedules import Schedule
from hguide.text import Call, Name, fail, read

__all__ = ["EntropyTemperature", "parse_temperature", "registry"]

registry: Registry[Any] = Registry("temperature")


@registry.register("entropy")
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
        >>> str(EntropyTemperature(theta=0.8))
        'entropy(theta=0.8)'
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

    def __str__(self) -> str:
        return text_of(self, registry)


def parse_temperature(text: str) -> Schedule | EntropyTemperature:
    """The temperature written in `text`: a schedule, or `entropy(...)`; `parse_temperature(str(t)) == t`.

    Args:
        text: for instance `linear(0.9)` or `entropy(2.0, alpha=3.0, theta=0.8)`.

    Raises:
        ParseError: the text cannot be read; points at the character, with near matches for names.

    >>> parse_temperature("entropy(theta=0.8)")
    EntropyTemperature(t0=2.5, alpha=3.0, theta=0.8)
    """
    node = read(text)
    if isinstance(node, Name | Call):
        name = node.text if isinstance(node, Name) else node.name
        if name in registry:
            return parse_entry(text, registry)
        if name not in schedules.registry:
            known = near_matches(name, [*registry, *schedules.registry])
            raise fail(text, node.at, f"unknown temperature {name!r}: {known}")
    return parse_schedule(text)

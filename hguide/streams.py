"""Streams: the predictions a guidance can ask a generator for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from hguide.errors import ConfigError

__all__ = ["COND", "UNCOND", "Corruption", "Perturbation", "Stream"]


@dataclass(frozen=True)
class Corruption:
    """A prefix of which a part is replaced by other tokens of the same scale (VPG, arXiv 2605.30317).

    Args:
        proportion: part of the prefix positions that is replaced, in [0, 1]; 0 is the sampled prefix itself.
        redraw: draw other positions at every step; False fixes them when they enter the cache.
        queries: corrupt the inputs of the current step as well.
    """

    proportion: float = 0.0
    redraw: bool = False
    queries: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.proportion <= 1.0:
            raise ConfigError(f"Corruption: proportion is a part between 0 and 1, got {self.proportion}.")


@dataclass(frozen=True)
class Perturbation:
    """A changed forward pass: which change (`kind`, named by the guidance) and in which blocks (`layers`)."""

    kind: str
    layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stream:
    """One prediction per step: under which condition, after which prefix, by which model, in which forward pass.

    Args:
        condition: "given" or "null".
        prefix: "sampled", or a `Corruption`; `Corruption(0)` is "sampled".
        model: "main", or the name of a lender given to `hguide.generate(models=...)`.
        perturb: a changed forward pass, or None.
    """

    condition: Literal["given", "null"] = "given"
    prefix: Literal["sampled"] | Corruption = "sampled"
    model: str = "main"
    perturb: Perturbation | None = None

    def __post_init__(self) -> None:
        if isinstance(self.prefix, Corruption) and self.prefix.proportion == 0.0:
            object.__setattr__(self, "prefix", "sampled")

    @property
    def null(self) -> Stream:
        """The same stream under the null condition."""
        return replace(self, condition="null")

    def corrupted(self, corruption: Corruption) -> Stream:
        """The same stream after a corrupted prefix."""
        return replace(self, prefix=corruption)

    def by(self, model: str) -> Stream:
        """The same stream predicted by another model."""
        return replace(self, model=model)

    def perturbed(self, perturbation: Perturbation) -> Stream:
        """The same stream in a changed forward pass."""
        return replace(self, perturb=perturbation)

    def __str__(self) -> str:
        parts: list[str] = [self.condition]
        if self.prefix != "sampled":
            parts.append(f"prefix corrupted {self.prefix.proportion:g}")
        if self.perturb is not None:
            layers = ",".join(map(str, self.perturb.layers))
            parts.append(f"perturbed by {self.perturb.kind}" + (f" in layers {layers}" if layers else ""))
        if self.model != "main":
            parts.append(f"of model {self.model!r}")
        return ", ".join(parts)


COND = Stream()
UNCOND = COND.null

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

    def __str__(self) -> str:
        return f"{self.proportion:g}" + " with queries" * self.queries + " redrawn" * self.redraw


@dataclass(frozen=True)
class Perturbation:
    """A changed forward pass.

    Args:
        kind: which change, named by the guidance.
        layers: the blocks that it changes, from 0; none leaves the choice to the generator.
        options: numbers that the kind takes, as (name, value).
    """

    kind: str
    layers: tuple[int, ...] = ()
    options: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        values = f" ({', '.join(f'{name}={value:g}' for name, value in self.options)})" if self.options else ""
        places = f" in layers {','.join(map(str, self.layers))}" if self.layers else ""
        return f"{self.kind}{values}{places}"


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
            parts.append(f"prefix corrupted {self.prefix}")
        if self.perturb is not None:
            parts.append(f"perturbed by {self.perturb}")
        if self.model != "main":
            parts.append(f"of model {self.model!r}")
        return ", ".join(parts)


COND = Stream()
UNCOND = COND.null

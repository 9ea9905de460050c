"""What the methods share whose strength depends on norms and inner products of the logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import near_matches
from hguide.guidance.gauge import fix_gauge, gauge_problems
from hguide.guidance.null_contrast import NullContrast

__all__ = ["REDUCTIONS", "ReducedContrast"]

REDUCTIONS = ("token", "map")


@dataclass(frozen=True)
class ReducedContrast(NullContrast):
    """A `NullContrast` with factors made of norms and inner products.

    Logits are defined up to a constant per token, and norms see it: they are taken in a fixed gauge. The factors are
    then applied to the logits as they came, which for categorical logits is the same distribution as fixing the gauge
    throughout, and keeps methods that reduce to CFG equal to it in every bit of the logits that matters. Logits of
    independent bits have no such constant: use `gauge=raw` with them.

    Args:
        strength: see `NullContrast`.
        w: see `NullContrast`.
        schedule: see `NullContrast`.
        gauge: "centred", "raw" or "log_softmax", see `fix_gauge`.
        reduction: "token" sums over the channels of each token, "map" over channels and tokens of a sample.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: an unknown gauge or reduction; what `NullContrast` raises.
    """

    gauge: str = "centred"
    reduction: str = "token"

    @property
    def partial(self) -> bool:  # type: ignore[override]
        """False where sums run over the whole map."""
        return self.reduction == "token"

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = [*super().problems(), *gauge_problems(self.gauge)]
        if self.reduction not in REDUCTIONS:
            found.append(f"unknown reduction {self.reduction!r}: {near_matches(self.reduction, REDUCTIONS)}")
        return found

    def fixed(self, logits: Float[Tensor, "*place v"]) -> Float[Tensor, "*place v"]:
        """The logits in the gauge of this method."""
        return fix_gauge(logits, self.gauge)

    def inner(self, a: Float[Tensor, "*place v"], b: Float[Tensor, "*place v"]) -> Float[Tensor, "*factor 1"]:
        """The inner product per token `(b, ..., 1)`, or per sample `(b, 1, ..., 1)`."""
        if self.reduction == "token":
            return torch.linalg.vecdot(a, b).unsqueeze(-1)
        return torch.linalg.vecdot(a.flatten(1), b.flatten(1)).reshape(-1, *[1] * (a.dim() - 1))

    def norm(self, a: Float[Tensor, "*place v"]) -> Float[Tensor, "*factor 1"]:
        """The Euclidean norm per token or per sample."""
        return self.inner(a, a).sqrt()

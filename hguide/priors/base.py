"""What a prior is: the logits of the step before, carried to the grid of this step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hguide.grids import Grid, Step
from hguide.registry import Registry

__all__ = ["LinearPrior", "Prior", "SeparablePrior", "registry"]


@dataclass(frozen=True)
class Prior(ABC):
    """Carries a map of logits from one grid to another, each channel by itself.

    Subclasses are frozen, hashable dataclasses that construct without arguments.
    """

    @abstractmethod
    def __call__(
        self, logits: Float[Tensor, "*batch h w v"], target: Grid, step: Step | None = None
    ) -> Float[Tensor, "*batch H W v"]:
        """The map on the grid `target`.

        Args:
            logits: `(..., h, w, v)`, channel last; h = w = 1 and non-square maps are allowed.
            target: `(H, W)`.
            step: the step the map is wanted for; read only where `depends_on_step`.

        Returns:
            `(..., H, W, v)` in the dtype of `logits`.
        """

    @property
    def depends_on_step(self) -> bool:
        """Whether the prior differs between steps with the same grids (an option of it is a schedule)."""
        return False

    def note(self, source: Grid, target: Grid) -> str:
        """One sentence on what is kept, changed or lost between two grids."""
        return f"{source[0]}x{source[1]} -> {target[0]}x{target[1]}"


@dataclass(frozen=True)
class LinearPrior(Prior):
    """A prior that is one matrix per pair of grids, the same for all channels.

    A prior that depends on the step may read `step.index` and `step.count` only, since compiled matrices are kept.
    """

    @abstractmethod
    def matrix(self, source: Grid, target: Grid, step: Step | None = None) -> Float64[Tensor, "HW hw"]:
        """The matrix P with `vec(prior) = P vec(map)`, positions in row-major order.

        Args:
            source: `(h, w)`.
            target: `(H, W)`.
            step: as in `__call__`.

        Returns:
            `(H * W, h * w)`, float64, on the CPU.
        """

    def __call__(
        self, logits: Float[Tensor, "*batch h w v"], target: Grid, step: Step | None = None
    ) -> Float[Tensor, "*batch H W v"]:
        """The map on the grid `target`; see `Prior`."""
        # The products know priors, so they cannot be imported before this module is there.
        from hguide.priors.compiled import operator
        from hguide.priors.operators import apply

        source = (logits.shape[-3], logits.shape[-2])
        return apply(operator(self, source, target, step, logits.device, logits.dtype), logits, target)


@dataclass(frozen=True)
class SeparablePrior(LinearPrior):
    """A linear prior that is a sum of few terms, each acting on the two axes apart: P = sum_t Y_t (x) X_t."""

    @abstractmethod
    def factors(self, source: Grid, target: Grid, step: Step | None = None) -> tuple[tuple[Tensor, Tensor], ...]:
        """The terms `(Y_t, X_t)`: `(H, h)` for the height and `(W, w)` for the width, float64 on the CPU."""

    def matrix(self, source: Grid, target: Grid, step: Step | None = None) -> Float64[Tensor, "HW hw"]:
        """The sum of the Kronecker products of the factors; see `LinearPrior`."""
        rows, columns = target[0] * target[1], source[0] * source[1]
        total = torch.zeros(rows, columns, dtype=torch.float64, device="cpu")
        for y, x in self.factors(source, target, step):
            total += torch.einsum("Hh,Ww->HWhw", y, x).reshape(rows, columns)
        return total


registry: Registry[Prior] = Registry("prior", "hguide.priors")

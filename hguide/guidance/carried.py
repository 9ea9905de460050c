"""A remembered map on the places that a step predicts."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from hguide.grids import Step
from hguide.priors import Prior

__all__ = ["carried"]


def carried(prior: Prior, previous: Float[Tensor, "b h0 w0 v"], step: Step) -> Float[Tensor, "b *place v"]:
    """P times the previous map: `(b, h, w, v)`, or its rows `(b, n, v)` at the positions of a partial map."""
    full = prior(previous, step.grid, step)
    if step.positions is None:
        return full
    rows = full.flatten(1, 2)
    return rows.gather(1, step.positions[..., None].expand(-1, -1, rows.shape[-1]))

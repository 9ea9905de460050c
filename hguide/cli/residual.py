"""The semantic residual of a run: what each scale says beyond the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from hguide.cli.batches import Pair, sample_batches
from hguide.experiments.trace.residual import mixed_logits
from hguide.generate import StepRecord
from hguide.generator import ScaleGenerator
from hguide.grids import Grid
from hguide.guidance import SSG, Guidance
from hguide.images import to_uint8
from hguide.priors import DSE, Prior
from hguide.sampling import Sampler

__all__ = ["StepTrace", "prior_of", "residual_energy", "trace"]


@dataclass(frozen=True, eq=False)
class StepTrace:
    """What one step showed.

    Attributes:
        index: step index from 0.
        grid: of the map.
        picture: `(H, W, 3)` bytes, decoded after the step.
        energy: mean over the tokens of |l_k - P l_{k-1}|^2; None where there is no map before.
        share: that energy relative to the mean of |l_k|^2.
        heat: `(h, w)` the energy of each token, or None.
    """

    index: int
    grid: Grid
    picture: UInt8[np.ndarray, "H W 3"]
    energy: float | None
    share: float | None
    heat: Float[np.ndarray, "h w"] | None


def prior_of(guidance: Guidance) -> Prior:
    """P of the first SSG in a guidance; DSE, the paper's, where there is none."""
    if isinstance(guidance, SSG):
        return guidance.prior
    parts: Sequence[Any] = getattr(guidance, "stages", ()) or getattr(guidance, "terms", ())
    inside = (prior_of(part) for part in parts if isinstance(part, Guidance))
    return next((prior for prior in inside if prior != DSE()), DSE())


def residual_energy(
    logits: Float[Tensor, "b h w v"], prior: Float[Tensor, "b h w v"]
) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """|l_k - P l_{k-1}|^2 and |l_k|^2 of each token, summed over the channels.

    Logits are defined up to a constant per token, so the mean over the channels is taken out first.
    """
    residual = logits.float() - prior.float()
    return _square(residual), _square(logits.float())


def _square(values: Tensor) -> Tensor:
    return (values - values.mean(-1, keepdim=True)).square().sum(-1)


def trace(
    generator: ScaleGenerator,
    pair: Pair,
    guidance: Guidance,
    sampler: Sampler,
    models: Mapping[str, ScaleGenerator] | None = None,
) -> list[StepTrace]:
    """Sample one image and look at every step.

    l_k is the map that SSG receives: the weighted sum of the streams, before the extrapolation.
    """
    prior = prior_of(guidance)
    found: list[StepTrace] = []
    before: list[Tensor] = []

    def look(record: StepRecord) -> None:
        step = record.step
        picture = to_uint8(record.decode()[:1])[0]
        if step.positions is not None:
            found.append(StepTrace(step.index, step.grid, picture, None, None, None))
            return
        logits = mixed_logits(record)
        energy = share = heat = None
        if before:
            tokens, whole = residual_energy(logits, prior(before[-1], step.grid, step))
            energy = float(tokens.mean())
            share = energy / max(float(whole.mean()), 1e-30)
            heat = tokens[0].cpu().numpy()
        before[:] = [logits]
        found.append(StepTrace(step.index, step.grid, picture, energy, share, heat))

    for _ in sample_batches(generator, [(pair,)], guidance, sampler, look, models=models):
        pass
    return found

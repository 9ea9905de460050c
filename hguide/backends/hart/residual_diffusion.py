"""Drawing the continuous residual: ancestral sampling with a learned variance, guided by the weights of the streams."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.backends.hart.diffusion_schedule import DiffusionSchedule
from hguide.backends.hart.residual_head import ResidualHead
from hguide.grids import Step
from hguide.noise import Noise

__all__ = ["RESIDUAL_SCALE", "DiffusionStep", "draw_residual", "residual_weights"]

RESIDUAL_SCALE = 0.6
"""A drawn residual times this is added to the code."""


@dataclass(frozen=True, eq=False)
class DiffusionStep:
    """What one step of the sampler did, for those who look; `(b, n, c)` unless said.

    Attributes:
        index: i of the respaced schedule.
        timestep: of the 1000 of training.
        noisy: x_t.
        raw: network output of each stream with a weight, `(streams, b, n, 2c)`.
        guided: [guided eps | v of the first stream], `(b, n, 2c)`.
        start: the predicted x_0, clamped.
        mean: of the posterior.
        log_variance: of the posterior.
    """

    index: int
    timestep: int
    noisy: Tensor
    raw: Tensor
    guided: Tensor
    start: Tensor
    mean: Tensor
    log_variance: Tensor


OnDiffusionStep = Callable[[DiffusionStep], None]


def residual_weights(weights: Sequence[float], unguided_at_one: bool) -> list[float]:
    """Weights of the streams' noise predictions, those of the first stream first; they sum to 1.

    Args:
        weights: of the guidance, the given stream's first.
        unguided_at_one: the official sampler takes its unguided branch where its strength t, here the first weight
            less 1, is 1.0 exactly. An accident (it tests whether guidance is off in the convention u + w (c - u)), but
            pictures of strength 1 depend on it.
    """
    if unguided_at_one and weights[0] - 1.0 == 1.0:
        return [1.0] + [0.0] * (len(weights) - 1)
    return list(weights)


def draw_residual(
    head: ResidualHead,
    schedule: DiffusionSchedule,
    conditions: Sequence[Float[Tensor, "b n z"]],
    weights: Sequence[float],
    noise: Noise,
    step: Step,
    on_step: OnDiffusionStep | None = None,
) -> Float[Tensor, "b n c"]:
    """Residuals of the tokens of a step.

    From x ~ N(0, 1), for i from the last step to 0: eps = sum_s w_s eps_s(x, z_s), v of the first stream;
    x0 = clamp(x / sqrt(A) - sqrt(1/A - 1) eps, -1, 1), mean = coef1 x0 + coef2 x, log variance = f ln beta +
    (1 - f) ln posterior variance with f = (v + 1) / 2; x = mean + exp(log variance / 2) noise, without noise at i = 0.
    The result is 0.6 x.

    Args:
        head: the network.
        schedule: its tables.
        conditions: z of each stream; the given stream is the first.
        weights: of the streams' eps; streams of weight 0 are not computed.
        noise: of the run.
        step: where in the run.
        on_step: sees each step.

    Returns:
        `(b, n, c)`, float32 or wider.

    Source: arXiv 2410.10812 and official code; sampler of arXiv 2102.09672.
    """
    used = [
        (z, weight) for place, (z, weight) in enumerate(zip(conditions, weights, strict=True)) if weight or not place
    ]
    b, n, _ = conditions[0].shape
    device, dtype = conditions[0].device, torch.promote_types(conditions[0].dtype, torch.float32)
    embedded = head.embed(torch.cat([z.flatten(0, 1) for z, _ in used]))
    places: int | Tensor = n if step.positions is None else step.positions

    def normal(purpose: str) -> Tensor:
        return noise.normal(step, purpose, places, head.channels).to(device, dtype)

    x = normal("diffusion")
    for i in reversed(range(schedule.count)):
        timestep = torch.full((1,), schedule.timestep_map[i], device=device, dtype=dtype)
        raw = head(x.flatten(0, 1).repeat(len(used), 1), timestep, embedded).to(dtype)
        raw = raw.view(len(used), b, n, 2 * head.channels)
        eps, v = raw.chunk(2, dim=-1)
        guided = sum((weight * each for (_, weight), each in zip(used, eps, strict=True)), torch.zeros_like(x))
        start = schedule.sqrt_recip_alphas_cumprod[i] * x - schedule.sqrt_recipm1_alphas_cumprod[i] * guided
        start = start.clamp(-1.0, 1.0)
        mean = schedule.posterior_mean_coef1[i] * start + schedule.posterior_mean_coef2[i] * x
        part = (v[0] + 1.0) / 2.0
        log_variance = part * math.log(schedule.betas[i]) + (1.0 - part) * schedule.posterior_log_variance_clipped[i]
        if on_step is not None:
            both = torch.cat([guided, v[0]], dim=-1)
            on_step(DiffusionStep(i, schedule.timestep_map[i], x, raw, both, start, mean, log_variance))
        x = mean if i == 0 else mean + torch.exp(0.5 * log_variance) * normal(f"diffusion-{i}")
    return RESIDUAL_SCALE * x

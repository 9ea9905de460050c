"""What HART's residual head is trained with: noise prediction and a learned variance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.hart.diffusion_schedule import TRAINED_STEPS, respaced
from hguide.backends.hart.residual_diffusion import RESIDUAL_SCALE
from hguide.backends.hart.residual_head import ResidualHead

__all__ = ["ResidualLoss", "residual_loss"]


@dataclass(frozen=True, eq=False)
class ResidualLoss:
    """The two terms, means over tokens and channels; their sum is what is minimised.

    Attributes:
        noise: squared error of eps.
        variance: KL divergence of the step in nats, the predicted noise held fixed.
    """

    noise: Float[Tensor, ""]
    variance: Float[Tensor, ""]


def residual_loss(
    head: ResidualHead,
    condition: Float[Tensor, "m z"],
    residual: Float[Tensor, "m c"],
    timesteps: Int[Tensor, " m"],
    noise: Float[Tensor, "m c"],
) -> ResidualLoss:
    """Loss of predicting the noise in x_t = sqrt(A_t) x_0 + sqrt(1 - A_t) eps, x_0 = residual / 0.6.

    noise = |eps - eps'|^2; variance = KL(q(x_{t-1} | x_t, x_0) || N(mean of eps', exp of f ln beta_t + (1 - f) ln
    posterior variance)), f = (v + 1) / 2, with eps' held fixed; 0 at t = 0, whose variance is never drawn. With the
    published weight 0.001 of the sum over 1000 steps, one drawn step counts as it is.

    Args:
        head: the network.
        condition: z of each token.
        residual: what is to be drawn, the continuous rest less the code of the token.
        timesteps: t of each token, from 0 to 999.
        noise: eps of each token, normal.

    Source: arXiv 2102.09672, equations 14 to 16; the target is that of the official HART code.
    """
    schedule = respaced(TRAINED_STEPS)

    def at(table: tuple[float, ...]) -> Float[Tensor, "m 1"]:
        return _table(table).to(noise.device, noise.dtype)[timesteps, None]

    start, level = residual / RESIDUAL_SCALE, at(schedule.alphas_cumprod)
    noisy = level.sqrt() * start + (1 - level).sqrt() * noise
    eps, v = head(noisy, timesteps.to(noise.dtype), head.embed(condition)).to(noise.dtype).chunk(2, dim=-1)
    found = at(schedule.sqrt_recip_alphas_cumprod) * noisy - at(schedule.sqrt_recipm1_alphas_cumprod) * eps.detach()
    apart = at(schedule.posterior_mean_coef1) * (start - found)
    true_log = at(schedule.posterior_log_variance_clipped)
    own_log = _log_variance(v, at(schedule.betas).log(), true_log)
    divergence = 0.5 * (own_log - true_log - 1 + (true_log - own_log).exp() + apart.square() * (-own_log).exp())
    drawn = (timesteps > 0)[:, None]
    return ResidualLoss((eps - noise).square().mean(), (divergence * drawn).mean())


def _log_variance(v: Tensor, largest: Tensor, smallest: Tensor) -> Tensor:
    part = (v + 1) / 2
    return part * largest + (1 - part) * smallest


@cache
def _table(values: tuple[float, ...]) -> Float[Tensor, " steps"]:
    return torch.tensor(values, dtype=torch.float64)

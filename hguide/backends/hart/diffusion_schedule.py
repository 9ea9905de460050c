"""The noise schedule of HART's residual head: cosine, 1000 steps, respaced."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from hguide.errors import ConfigError

__all__ = ["TRAINED_STEPS", "DiffusionSchedule", "cosine_betas", "respaced"]

TRAINED_STEPS = 1000
LARGEST_BETA = 0.999

Table = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class DiffusionSchedule:
    """Tables of a respaced Gaussian diffusion, one number per step, the least noisy first.

    With a_i = 1 - beta_i and A_i = a_0 ... a_i, A_{-1} = 1, the posterior has the mean coef1 x0 + coef2 x_t with
    coef1 = beta sqrt(A_{i-1}) / (1 - A) and coef2 = (1 - A_{i-1}) sqrt(a) / (1 - A), and the variance
    beta (1 - A_{i-1}) / (1 - A).

    Attributes:
        timestep_map: index of each step among the 1000 of training.
        betas: beta.
        alphas_cumprod: A.
        sqrt_recip_alphas_cumprod: 1 / sqrt(A).
        sqrt_recipm1_alphas_cumprod: sqrt(1/A - 1).
        posterior_variance: 0 at the first step.
        posterior_log_variance_clipped: its logarithm, the first step taking the second's.
        posterior_mean_coef1: coef1.
        posterior_mean_coef2: coef2.

    Source: arXiv 2102.09672 (cosine schedule, respacing, learned range); official HART code.
    """

    timestep_map: tuple[int, ...]
    betas: Table
    alphas_cumprod: Table
    sqrt_recip_alphas_cumprod: Table
    sqrt_recipm1_alphas_cumprod: Table
    posterior_variance: Table
    posterior_log_variance_clipped: Table
    posterior_mean_coef1: Table
    posterior_mean_coef2: Table

    @property
    def count(self) -> int:
        """Number of steps."""
        return len(self.timestep_map)


def cosine_betas(count: int = TRAINED_STEPS) -> Table:
    """beta_i = min(1 - A((i+1)/n) / A(i/n), 0.999), A(u) = cos((u + 0.008) / 1.008 pi/2)^2."""

    def level(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return tuple(min(1 - level((i + 1) / count) / level(i / count), LARGEST_BETA) for i in range(count))


@cache
def respaced(count: int) -> DiffusionSchedule:
    """The schedule on `count` of the 1000 steps, evenly spaced and with both ends.

    Args:
        count: from 2 to 1000.

    Raises:
        ConfigError: another count.
    """
    if not 2 <= count <= TRAINED_STEPS:
        raise ConfigError(f"the residual head takes 2 to {TRAINED_STEPS} diffusion steps, got {count}.")
    stride = (TRAINED_STEPS - 1) / (count - 1)
    steps = tuple(round(k * stride) for k in range(count))
    kept = np.cumprod(1.0 - np.array(cosine_betas()))[list(steps)]
    betas = 1.0 - kept / np.append(1.0, kept[:-1])
    alphas = 1.0 - betas
    level = np.cumprod(alphas)
    before = np.append(1.0, level[:-1])
    variance = betas * (1.0 - before) / (1.0 - level)
    return DiffusionSchedule(
        timestep_map=steps,
        betas=_table(betas),
        alphas_cumprod=_table(level),
        sqrt_recip_alphas_cumprod=_table(np.sqrt(1.0 / level)),
        sqrt_recipm1_alphas_cumprod=_table(np.sqrt(1.0 / level - 1.0)),
        posterior_variance=_table(variance),
        posterior_log_variance_clipped=_table(np.log(np.append(variance[1], variance[1:]))),
        posterior_mean_coef1=_table(betas * np.sqrt(before) / (1.0 - level)),
        posterior_mean_coef2=_table((1.0 - before) * np.sqrt(alphas) / (1.0 - level)),
    )


def _table(values: np.ndarray) -> Table:
    return tuple(values.tolist())

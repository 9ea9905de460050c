"""The reverse step of VQ-Diffusion: p(x_{t-1} | x_t) from p(x0 | x_t) (arXiv 2111.14822)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.vq_diffusion.log_probabilities import LEAST_LOG
from hguide.backends.vq_diffusion.noise_schedule import NoiseSchedule

__all__ = ["forward_log_probabilities", "posterior"]

LOG_NOTHING = math.log(1e-30)
_CUMULATIVE = ("log_cumprod_at", "log_cumprod_bt", "log_cumprod_ct")
_OF_ONE_STEP = ("log_at", "log_bt", "log_ct")


def posterior(
    log_x0: Float[Tensor, "b n c"],
    tokens: Int[Tensor, "b n"],
    timestep: int | Int[Tensor, " b"],
    schedule: NoiseSchedule,
) -> Float[Tensor, "b n c"]:
    """log p(x_{t-1} = j | x_t) = log sum_k p(x0 = k | x_t) q(x_t | j) q(j | x0 = k) / q(x_t | x0 = k), in log space.

    Args:
        log_x0: log p(x0 | x_t), the mask last; need not sum to 1, and what is missing is missing in the result.
        tokens: x_t from 0 to K, K being the mask.
        timestep: t from 0 to T - 1, of all samples or of each.
        schedule: of the model.

    Returns:
        Over the K codes and the mask, clamped to [-70, 0].
    """
    now = _logarithms(schedule, (*_CUMULATIVE, *_OF_ONE_STEP), timestep, log_x0.device)
    before = _logarithms(schedule, (*_CUMULATIVE, "log_1_min_cumprod_ct"), timestep - 1, log_x0.device)
    masked = (tokens == schedule.codes).unsqueeze(-1)
    own = _own_code(tokens, schedule.codes)
    # q(x_t | x0 = k) and q(x_t | x_{t-1} = k), for the real codes k.
    from_start = _of_pair(own, masked, now[:3])
    from_before = _of_pair(own, masked, now[3:])
    from_mask = torch.where(masked, 0.0, LOG_NOTHING)
    share = torch.cat([log_x0[..., :-1] - from_start, torch.full_like(from_mask, LOG_NOTHING)], dim=-1)
    total = share.logsumexp(-1, keepdim=True)
    share = share - total
    stays, replaced, turned, stays_unmasked = before
    real = torch.logaddexp(share[..., :-1] + stays, replaced) + from_before
    mask = torch.logaddexp(share[..., -1:] + stays_unmasked, turned) + from_mask
    return (torch.cat([real, mask], dim=-1) + total).clamp_(LEAST_LOG, 0.0)


def forward_log_probabilities(
    tokens: Int[Tensor, "b n"], timestep: int | Int[Tensor, " b"], schedule: NoiseSchedule
) -> Float[Tensor, "b n c"]:
    """log q(x_t | x0): a real token stays, is replaced, or is masked.

    Args:
        tokens: x0, from 0 to K - 1.
        timestep: t from 0 to T - 1, of all samples or of each.
        schedule: of the model.
    """
    stays, replaced, turned = _logarithms(schedule, _CUMULATIVE, timestep, tokens.device)
    own = _own_code(tokens, schedule.codes)
    real = torch.where(own, torch.logaddexp(stays, replaced), replaced)
    return torch.cat([real, turned.expand(*tokens.shape, 1)], dim=-1)


def _logarithms(
    schedule: NoiseSchedule, names: Sequence[str], timestep: int | Int[Tensor, " b"], device: torch.device
) -> list[Float[Tensor, "r 1 1"]]:
    """Logarithms of the schedule at a timestep, one row for all samples or one for each."""
    if isinstance(timestep, int):
        values = [float(schedule.logarithms[name][timestep]) for name in names]
        # Written by the device: to move them would make the program wait for it.
        return [torch.full((1, 1, 1), value, device=device) for value in values]
    rows = torch.stack([schedule.at(name, timestep.reshape(-1).cpu()) for name in names]).to(device)
    return [row.view(-1, 1, 1) for row in rows]


def _own_code(tokens: Int[Tensor, "b n"], codes: int) -> Tensor:
    """`(b, n, K)`, True at the code that a token is; nowhere for the mask."""
    return tokens.unsqueeze(-1) == torch.arange(codes, device=tokens.device)


def _of_pair(own: Tensor, masked: Tensor, logs: list[Tensor]) -> Tensor:
    """Log-probability that a code becomes x_t: stayed or replaced by itself, replaced, or masked."""
    stays, replaced, turned = logs
    return torch.where(masked, turned, torch.where(own, torch.logaddexp(stays, replaced), replaced))

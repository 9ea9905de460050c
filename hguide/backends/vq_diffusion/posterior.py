"""The reverse step of VQ-Diffusion: p(x_{t-1} | x_t) from p(x0 | x_t) (arXiv 2111.14822)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.vq_diffusion.log_probabilities import LEAST_LOG
from hguide.backends.vq_diffusion.noise_schedule import NoiseSchedule

__all__ = ["forward_log_probabilities", "posterior"]

LOG_NOTHING = math.log(1e-30)


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
    now, before = (_logarithms(schedule, timestep, shift, log_x0.device) for shift in (0, -1))
    masked = (tokens == schedule.codes).unsqueeze(-1)
    own = _own_code(tokens, schedule.codes)
    # q(x_t | x0 = k) and q(x_t | x_{t-1} = k), for the real codes k.
    from_start = _of_pair(own, masked, [now[f"log_cumprod_{each}"] for each in ("at", "bt", "ct")])
    from_before = _of_pair(own, masked, [now[f"log_{each}"] for each in ("at", "bt", "ct")])
    from_mask = torch.where(masked, 0.0, LOG_NOTHING)
    share = torch.cat([log_x0[..., :-1] - from_start, torch.full_like(from_mask, LOG_NOTHING)], dim=-1)
    total = share.logsumexp(-1, keepdim=True)
    share = share - total
    stays, replaced, turned = (before[f"log_cumprod_{each}"] for each in ("at", "bt", "ct"))
    real = torch.logaddexp(share[..., :-1] + stays, replaced) + from_before
    mask = torch.logaddexp(share[..., -1:] + before["log_1_min_cumprod_ct"], turned) + from_mask
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
    now = _logarithms(schedule, timestep, 0, tokens.device)
    stays, replaced, turned = (now[f"log_cumprod_{each}"] for each in ("at", "bt", "ct"))
    own = _own_code(tokens, schedule.codes)
    real = torch.where(own, torch.logaddexp(stays, replaced), replaced)
    return torch.cat([real, turned.expand(*tokens.shape, 1)], dim=-1)


def _logarithms(
    schedule: NoiseSchedule, timestep: int | Int[Tensor, " b"], shift: int, device: torch.device
) -> dict[str, Float[Tensor, "r 1 1"]]:
    """All logarithms of the schedule at `timestep + shift`, one row for all samples or one for each."""
    index = torch.as_tensor(timestep).reshape(-1).cpu() + shift
    names = list(schedule.logarithms)
    rows = torch.stack([schedule.at(name, index) for name in names]).to(device)
    return {name: row.view(-1, 1, 1) for name, row in zip(names, rows, strict=True)}


def _own_code(tokens: Int[Tensor, "b n"], codes: int) -> Tensor:
    """`(b, n, K)`, True at the code that a token is; nowhere for the mask."""
    return tokens.unsqueeze(-1) == torch.arange(codes, device=tokens.device)


def _of_pair(own: Tensor, masked: Tensor, logs: list[Tensor]) -> Tensor:
    """Log-probability that a code becomes x_t: stayed or replaced by itself, replaced, or masked."""
    stays, replaced, turned = logs
    return torch.where(masked, turned, torch.where(own, torch.logaddexp(stays, replaced), replaced))

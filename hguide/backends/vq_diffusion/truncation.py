"""Truncation of p(x0 | x_t): the filters of the sampler as VQ-Diffusion applies them (arXiv 2111.14822)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hguide.backends.vq_diffusion.log_probabilities import LEAST_LOG, normalised, with_mask_row
from hguide.errors import ConfigError
from hguide.grids import Step
from hguide.sampling import Sampler
from hguide.schedules import Schedule

__all__ = ["filtered", "truncated"]


def truncated(log_x0: Float[Tensor, "*place c"], rate: float) -> Float[Tensor, "*place c"]:
    """Keep the most probable codes until their mass reaches `rate`; the rest is set to -70, and nothing renormalised.

    A code is kept iff the codes before it, in descending order, have a mass below the rate; the first is always kept.
    This is the official "top{rate}r". At rate 1 all codes stay; the official program may drop some whose mass, less
    than 1e-7 in all, is lost in the rounding of the sum, which of them changes from machine to machine.

    Args:
        log_x0: log-probabilities, the mask's among them.
        rate: in (0, 1].
    """
    if rate >= 1.0:
        return log_x0
    values, order = log_x0.sort(dim=-1, descending=True)
    before = values.exp_().cumsum_(-1)[..., :-1]
    kept = F.pad(before < rate, (1, 0), value=True)
    return log_x0.masked_fill(~torch.zeros_like(kept).scatter_(-1, order, kept), LEAST_LOG)


def filtered(log_x0: Float[Tensor, "b n k"], sampler: Sampler, step: Step) -> Float[Tensor, "b n c"]:
    """What the sampler's temperature, top-k and top-p leave of guided log-probabilities, with a channel for the mask.

    Temperature divides them before they are normalised; `top_p` is the truncation rate, 0 for none; `top_k` keeps the
    k most probable codes in the same manner (*reconstructed*: the official option does not run). Dropped codes have
    -70, and the mass of the kept ones stays below 1: the posterior takes it as it is. A temperature that depends on
    the logits acts after the filters and leaves that mass as it was.

    Args:
        log_x0: guided, not normalised.
        sampler: with the filters.
        step: where in the run.

    Raises:
        ConfigError: top_k larger than the number of codes.
    """
    depends = callable(sampler.temperature) and not isinstance(sampler.temperature, Schedule)
    temperature = 1.0 if depends else sampler.at("temperature", step)
    kept = with_mask_row(normalised(log_x0 if temperature == 1.0 else log_x0 / temperature))
    top_k = int(sampler.at("top_k", step))
    if top_k > log_x0.shape[-1]:
        raise ConfigError(f"Sampler: top_k = {top_k} but there are {log_x0.shape[-1]} codes; use 0 for all.")
    if top_k > 0:
        least = kept.topk(top_k, dim=-1).values[..., -1:]
        kept = kept.masked_fill(kept < least, LEAST_LOG)
    rate = float(sampler.at("top_p", step))
    if rate > 0.0:
        kept = truncated(kept, rate)
    return _tempered(kept, sampler) if depends else kept


def _tempered(log_x0: Float[Tensor, "b n c"], sampler: Sampler) -> Float[Tensor, "b n c"]:
    assert callable(sampler.temperature)
    assert not isinstance(sampler.temperature, Schedule)
    values = log_x0.masked_fill(log_x0 <= LEAST_LOG, -math.inf)
    scaled = values / sampler.temperature(values)
    mass = values.logsumexp(-1, keepdim=True) - scaled.logsumexp(-1, keepdim=True)
    return (scaled + mass).clamp_(LEAST_LOG, 0.0)

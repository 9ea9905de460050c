"""What VQ-Diffusion trains on: the variational bound, and a cross entropy of the clean tokens (arXiv 2111.14822)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hguide.backends.vq_diffusion.log_probabilities import LEAST_LOG, log_probabilities, with_mask_row
from hguide.backends.vq_diffusion.noise_schedule import NoiseSchedule
from hguide.backends.vq_diffusion.posterior import posterior

__all__ = ["LossTerms", "loss_terms", "noisy_tokens", "spread_timesteps"]


@dataclass(frozen=True, eq=False)
class LossTerms:
    """The two terms of each sample, in nats per token.

    Attributes:
        divergence: KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)); at t = 0 that is -log p(x_0 | x_t).
        entropy: -log p(x_0 | x_t), the auxiliary term.
    """

    divergence: Float[Tensor, " b"]
    entropy: Float[Tensor, " b"]

    def total(self, timesteps: int, auxiliary: float) -> Float[Tensor, ""]:
        """T times the mean of divergence + auxiliary entropy: the sum over the timesteps, where they are drawn evenly.

        Args:
            timesteps: T.
            auxiliary: weight lambda of the entropy.
        """
        return timesteps * (self.divergence + auxiliary * self.entropy).mean()


def loss_terms(
    logits: Float[Tensor, "b l k"],
    clean: Int[Tensor, "b l"],
    noisy: Int[Tensor, "b l"],
    timesteps: Int[Tensor, " b"],
    schedule: NoiseSchedule,
) -> LossTerms:
    """The terms of the loss at one timestep of each sample.

    p(x_{t-1} | x_t) is the posterior of the predicted p(x_0 | x_t), q(x_{t-1} | x_t, x_0) that of certainty about x_0:
    the same function for both. Log-probabilities below -70 count as -70 and give no gradient, as in sampling.

    Args:
        logits: of the denoiser.
        clean: x_0, from 0 to K - 1.
        noisy: x_t, from 0 to K.
        timesteps: t from 0 to T - 1.
        schedule: of the model.

    Source: arXiv 2111.14822, variational bound and auxiliary objective; its t counts from 1, here from 0. The bound's
    last part, KL(q(x_T) || p(x_T)), has nothing to train and is left out.
    """
    log_x0 = with_mask_row(log_probabilities(logits))
    found = posterior(log_x0, noisy, timesteps, schedule)
    with torch.no_grad():
        certain = torch.full_like(log_x0, LEAST_LOG).scatter_(-1, clean.unsqueeze(-1), 0.0)
        true = posterior(certain, noisy, timesteps, schedule)
    divergence = (true.exp() * (true - found)).sum(-1).mean(1)
    return LossTerms(divergence, F.nll_loss(log_x0.mT, clean, reduction="none").mean(1))


def noisy_tokens(
    clean: Int[Tensor, "b l"], timesteps: Int[Tensor, " b"], schedule: NoiseSchedule
) -> Int[Tensor, "b l"]:
    """x_t drawn from q(x_t | x_0) with torch's default generator: masked, else replaced by any code, else kept.

    Args:
        clean: x_0, from 0 to K - 1.
        timesteps: t from 0 to T - 1 of each sample.
        schedule: of the model.
    """
    table = schedule.probabilities
    masked, replaced = (
        table[name][timesteps.cpu()].to(clean.device, torch.float32).unsqueeze(1) for name in ("ctt", "btt")
    )
    draw = torch.rand(clean.shape, device=clean.device)
    other = torch.randint_like(clean, schedule.codes)
    kept = torch.where(draw < masked + schedule.codes * replaced, other, clean)
    return torch.where(draw < masked, schedule.codes, kept)


def spread_timesteps(count: int, timesteps: int) -> Int[Tensor, " count"]:
    """Timesteps of a batch, floor(T (i + u) / count) with one uniform u: each is as probable as any other.

    Drawn evenly and spread over the batch, which lowers the variance (low-discrepancy sampler of arXiv 2107.00630). The
    official program draws them in proportion to the root mean square of their past losses. With this schedule there is
    little to gain: a masked token counts 1 / (t + 1) and there are about L (t + 1) / T of them; once
    visible tokens are copied, these roots differ by a factor of 1.6 at most for L = 64, T = 100 and equal entropies.

    Args:
        count: samples of the batch.
        timesteps: T.
    """
    place = (torch.arange(count, dtype=torch.float64) + torch.rand((), dtype=torch.float64)) / count
    return (place * timesteps).long().clamp(max=timesteps - 1)

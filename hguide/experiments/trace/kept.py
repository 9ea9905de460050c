"""What the sampler's filters leave to choose from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.experiments.trace.entropy import bit_entropy, token_entropy
from hguide.generator import Binary, Categorical
from hguide.grids import Step
from hguide.sampling import Sampler

__all__ = ["Kept", "kept_candidates"]


@dataclass(frozen=True, eq=False)
class Kept:
    """What is left at each position after temperature, top-k and top-p.

    Attributes:
        count: `(b, n)` candidates: tokens; for bits the mean number of values that a bit may take, from 1 to 2.
        entropy: `(b, n)` of the distribution that is drawn from, in nats.
    """

    count: Float[Tensor, "b n"]
    entropy: Float[Tensor, "b n"]


def kept_candidates(
    logits: Float[Tensor, "b *place v"], step: Step, sampler: Sampler, channels: Categorical | Binary
) -> Kept:
    """The candidates of a step, by the rules of `Sampler.categorical` and `Sampler.bits`.

    Args:
        logits: guided.
        step: where in the run.
        sampler: of the run. A backend that transforms the guided logits before it filters them (VQ-Diffusion's
            posterior) keeps others.
        channels: what the logits are of.
    """
    if isinstance(channels, Categorical):
        found = sampler.candidates(logits, step)
        return Kept(found.count().float(), token_entropy(found.values, channels))
    flat = logits.reshape(logits.shape[0], -1, logits.shape[-1]).float() / sampler.at("temperature", step)
    top_k, top_p = int(sampler.at("top_k", step)), float(sampler.at("top_p", step))
    settled = torch.full_like(flat, top_k == 1, dtype=torch.bool)
    if top_p > 0.0:
        settled |= torch.sigmoid(-flat.abs()) <= 1.0 - top_p
    entropy = torch.where(settled, 0.0, bit_entropy(flat)).sum(-1)
    return Kept(2.0 - settled.float().mean(-1), entropy)

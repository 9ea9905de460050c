"""Corrupted prefixes: positions that take the whole input embedding of another position of their scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.grids import Step
from hguide.noise import Noise
from hguide.streams import Corruption

__all__ = ["corrupt", "donors", "first_rewritten"]


def corrupt(
    inputs: Float[Tensor, "rows l c"], corruption: Corruption, noise: Noise, step: Step, start: int
) -> Float[Tensor, "rows l c"]:
    """Same-scale full-embedding replacement: x'_u = x_u' for the `donors` u' of the positions u.

    Args:
        inputs: content plus position plus level embedding of one scale; rows are samples, stream by stream.
        corruption: how many positions.
        noise: of the run, with one seed per sample.
        step: whose draws are used.
        start: place of the scale's first token in the whole sequence.

    Returns:
        New inputs; every one of them is one of the given ones of its own row.
    """
    rows, length, _ = inputs.shape
    if length == 1:
        return inputs
    source = donors(corruption, noise, step, start, length, inputs.device)[..., None]
    source = source.repeat(rows // source.shape[0], 1, 1)
    return inputs.gather(1, source.expand_as(inputs))


def donors(
    corruption: Corruption, noise: Noise, step: Step, start: int, length: int, device: torch.device
) -> Int[Tensor, "b l"]:
    """The position whose input each position of a scale takes: its own, or another one.

    Each position is chosen with the probability `corruption.proportion`; its donor is uniform over the others. What
    is chosen depends on seed, step and position only: streams of different conditions share it, and the positions of
    a smaller proportion are among those of a larger one.

    Args:
        corruption: how many positions.
        noise: of the run, with one seed per sample.
        step: whose draws are used.
        start: place of the scale's first token in the whole sequence.
        length: tokens of the scale, at least 2.
        device: of the result.

    Source: arXiv 2605.30317 as a digest tells it (*second-hand*). *Reconstructed*: each position is chosen on its own
    rather than a fixed number of them.
    """
    own = torch.arange(length, device=device)
    places = own[None] + start
    chosen = noise.uniform(step, "corrupt", places, 1).to(device) < corruption.proportion
    # The product may round up to length - 1, which would make the shift length, that is the position itself.
    shift = (noise.uniform(step, "corrupt-from", places, 1).to(device) * (length - 1)).long().clamp_max_(length - 2)
    return torch.where(chosen, (own[None, :, None] + shift + 1) % length, own[None, :, None])[..., 0]


def first_rewritten(prefix: str | Corruption, index: int, lengths: Sequence[int]) -> int:
    """The first scale whose inputs must be run again, corrupted, before step `index`; `index` where none must.

    A redrawn prefix is run again as a whole. A fixed one enters the cache corrupted: at once where the step's own
    inputs (`queries`) are corrupted too, else when its scale is over, since its own logits need the clean inputs. A
    first scale of one token has nothing to be replaced by.

    Args:
        prefix: of the stream.
        index: of the step.
        lengths: tokens of each scale.
    """
    if not isinstance(prefix, Corruption) or (prefix.queries and not prefix.redraw):
        return index
    first = 0 if prefix.redraw else index - 1
    return min(max(first, int(lengths[0] == 1)), index)

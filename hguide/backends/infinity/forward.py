"""One step of Infinity for several streams at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.corruption import donors, first_rewritten
from hguide.backends.infinity.scale_schedule import ScaleSchedule
from hguide.backends.infinity.state import InfinityState
from hguide.backends.infinity.transformer import InfinityTransformer, Modulation, OnBlock
from hguide.backends.perturbation import PerturbedPass
from hguide.grids import Scale, Step
from hguide.streams import Corruption, Stream

__all__ = ["forward_streams"]


def forward_streams(
    transformer: InfinityTransformer, schedule: ScaleSchedule, state: InfinityState, step: Step, mix: OnBlock | None
) -> Float[Tensor, "rows l c"]:
    """The blocks on the inputs of a step, all live streams in one pass; the cache moves on.

    Before it, streams whose prefix is corrupted apart from their step's inputs, or drawn anew, run their prefix again
    in a pass of their own over their rows of the cache.

    Args:
        transformer: the network.
        schedule: of the run.
        state: of the run; `state.maps` holds the input of this step already.
        step: where in the run.
        mix: of the hidden states, or None.

    Returns:
        Output of the last block, `(streams * samples, l, C)`.

    Source: VPG for Infinity, arXiv 2605.30317, *second-hand*. *Reconstructed*: the position of a token, which is no
    part of Infinity's embedding, is its rotation, so a replaced token takes that of its donor as well.
    """
    _rewrite_prefixes(transformer, schedule, state, step)
    drawn = [step if _corrupts_queries(stream) else None for stream in state.streams]
    return _scale(transformer, schedule, state, step.index, state.streams, drawn, state.modulation, state.cache, mix)


def _rewrite_prefixes(
    transformer: InfinityTransformer, schedule: ScaleSchedule, state: InfinityState, step: Step
) -> None:
    """Run the corrupted inputs of earlier scales over the rows of the streams that need it."""
    stop = 0
    for prefix, group in groupby(state.streams, key=lambda stream: stream.prefix):
        streams = list(group)
        start, stop = stop, stop + len(streams) * state.samples
        first = first_rewritten(prefix, step.index, schedule.lengths)
        if first == step.index or not isinstance(prefix, Corruption):
            continue
        cache, modulation = state.cache.part(start, stop), state.modulation.part(start, stop)
        cache.rewind(schedule.starts[first])
        for k in range(first, step.index):
            # A fixed corruption is drawn for its scale, so that it stays what it was; another one for this step.
            at = step if prefix.redraw else Step(k, step.count, 0, Scale(k, *schedule.grids[k]))
            _scale(transformer, schedule, state, k, streams, [at] * len(streams), modulation, cache)


def _corrupts_queries(stream: Stream) -> bool:
    return isinstance(stream.prefix, Corruption) and stream.prefix.queries


def _scale(
    transformer: InfinityTransformer,
    schedule: ScaleSchedule,
    state: InfinityState,
    k: int,
    streams: Sequence[Stream],
    drawn: Sequence[Step | None],
    modulation: Modulation,
    cache: KeyValueCache,
    mix: OnBlock | None = None,
) -> Float[Tensor, "rows l c"]:
    """The blocks on scale k; a stream is corrupted by the draws of its step in `drawn`, or not at all (None)."""
    start, length = schedule.starts[k], schedule.lengths[k]
    rope = state.rope[:, start : start + length]
    if k == 0:
        inputs = modulation.start.expand(-1, length, -1)
    else:
        inputs = transformer.embed(state.maps[k - 1]).repeat(len(streams), 1, 1)
    if length > 1 and any(drawn):
        source = _sources(state, streams, drawn, start, length, inputs.device)
        inputs = inputs.gather(1, source[..., None].expand_as(inputs))
        rope = rope[:, source].unsqueeze(2)
    changed = PerturbedPass(streams, state.samples, transformer.config.depth, schedule.grids[k])
    level = torch.full((length,), k, device=inputs.device)
    if not changed.changes:
        return transformer.forward_blocks(inputs, level, rope, modulation, cache, mix)

    def on_block(block: int, before: Tensor, after: Tensor) -> Tensor:
        x = changed.on_block(block, before, after)
        return x if mix is None else mix(block, before, x)

    return transformer.forward_blocks(inputs, level, rope, modulation, cache, on_block, changed.attend)


def _sources(
    state: InfinityState,
    streams: Sequence[Stream],
    drawn: Sequence[Step | None],
    start: int,
    length: int,
    device: torch.device,
) -> Tensor:
    """`(rows, l)` position whose input and rotation each position takes."""
    own = torch.arange(length, device=device).expand(state.samples, -1)
    rows = []
    for stream, step in zip(streams, drawn, strict=True):
        if isinstance(stream.prefix, Corruption) and step is not None:
            rows.append(donors(stream.prefix, state.noise, step, start, length, device))
        else:
            rows.append(own)
    return torch.cat(rows)

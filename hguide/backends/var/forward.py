"""One step of VAR for several streams at once."""

from __future__ import annotations

from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.backends.cache import KeyValueCache
from hguide.backends.corruption import corrupt, first_rewritten
from hguide.backends.perturbation import PerturbedPass
from hguide.backends.var.state import VARState
from hguide.backends.var.transformer import Modulation, VARTransformer
from hguide.grids import Scale, Step
from hguide.streams import Corruption, Stream

__all__ = ["forward_streams"]


def forward_streams(transformer: VARTransformer, state: VARState, step: Step) -> Float[Tensor, "rows l c"]:
    """The blocks on the inputs of a step, all live streams in one pass; the cache moves on.

    Before it, streams whose prefix is corrupted apart from their step's inputs, or drawn anew, run their prefix
    again in a pass of their own over their rows of the cache.

    Args:
        transformer: the network.
        state: of the run; `state.maps` holds the input of this step already.
        step: where in the run.

    Returns:
        Output of the last block, `(streams * samples, l, C)`.
    """
    _rewrite_prefixes(transformer, state, step)
    inputs = _clean_inputs(transformer, state, step.index, state.modulation, len(state.streams))
    start = transformer.config.starts[step.index]
    if any(_corrupts_queries(stream) for stream in state.streams):
        parts = [
            corrupt(part, stream.prefix, state.noise, step, start)
            if isinstance(stream.prefix, Corruption) and stream.prefix.queries
            else part
            for stream, part in zip(state.streams, inputs.split(state.samples), strict=True)
        ]
        inputs = torch.cat(parts)
    return _blocks(transformer, state, step, state.streams, inputs, state.modulation, state.cache)


def _rewrite_prefixes(transformer: VARTransformer, state: VARState, step: Step) -> None:
    """Run the corrupted inputs of earlier scales over the rows of the streams that need it."""
    config = transformer.config
    stop = 0
    for prefix, group in groupby(state.streams, key=lambda stream: stream.prefix):
        streams = list(group)
        start, stop = stop, stop + len(streams) * state.samples
        first = first_rewritten(prefix, step.index, config.lengths)
        if first == step.index or not isinstance(prefix, Corruption):
            continue
        cache, modulation = state.cache.part(start, stop), state.modulation.part(start, stop)
        cache.rewind(config.starts[first])
        for k in range(first, step.index):
            earlier = Step(k, step.count, 0, Scale(k, *config.grids[k]))
            inputs = _clean_inputs(transformer, state, k, modulation, len(streams))
            # A fixed corruption is drawn for its scale, so that it stays what it was; another one for this step.
            drawn_at = step if prefix.redraw else earlier
            inputs = corrupt(inputs, prefix, state.noise, drawn_at, config.starts[k])
            _blocks(transformer, state, earlier, streams, inputs, modulation, cache)


def _corrupts_queries(stream: Stream) -> bool:
    return isinstance(stream.prefix, Corruption) and stream.prefix.queries


def _clean_inputs(
    transformer: VARTransformer, state: VARState, k: int, modulation: Modulation, streams: int
) -> Float[Tensor, "rows l c"]:
    """Inputs of scale k for `streams` streams; those of one sample differ at the first scale only."""
    if k == 0:
        return transformer.first_input(modulation)
    return transformer.embed(state.maps[k - 1], k).repeat(streams, 1, 1)


def _blocks(
    transformer: VARTransformer,
    state: VARState,
    step: Step,
    streams: list[Stream],
    inputs: Tensor,
    modulation: Modulation,
    cache: KeyValueCache,
) -> Tensor:
    changed = PerturbedPass(streams, state.samples, transformer.config.depth, step.grid, state.confidence)
    if not changed.changes:
        return transformer.forward_blocks(inputs, modulation, cache)
    return transformer.forward_blocks(inputs, modulation, cache, on_block=changed.on_block, layer_attend=changed.attend)

"""CFG on the hidden state after a block, in place of the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hguide.backends.infinity.transformer import OnBlock
from hguide.errors import ConfigError
from hguide.streams import Stream

__all__ = ["check_layer", "mix_after"]


def check_layer(layer: int | None, depth: int) -> None:
    """Refuse a place that no block has.

    Args:
        layer: -m for after block depth - m (blocks from 0), 1 <= m <= depth; None for CFG on the logits.
        depth: number of blocks.

    Raises:
        ConfigError: another number.
    """
    if layer is not None and (isinstance(layer, bool) or not -depth <= layer <= -1):
        raise ConfigError(
            f"cfg_layer is a number from -1 (after the last of {depth} blocks) to {-depth} (after the first), or None "
            f"for CFG on the logits; got {layer!r}."
        )


def mix_after(
    layer: int | None, depth: int, live: Sequence[Stream], samples: int, weights: Mapping[Stream, float]
) -> OnBlock | None:
    """x = sum_s weight_s x_s after block depth - m, copied to all rows; None where nothing is to be mixed.

    With CFG's weights this is w x(given) + (1 - w) x(null). The streams go on from it, each with its own text.

    Args:
        layer: -m, or None.
        depth: number of blocks.
        live: streams of the batch, in its order.
        samples: rows of each.
        weights: of the guidance.

    Source: arXiv 2412.04431, code (`cfg_insertion_layer`).
    """
    used = {stream: weight for stream, weight in weights.items() if weight != 0.0}
    if layer is None or len(used) < 2:
        return None

    def on_block(block: int, before: Tensor, x: Tensor) -> Tensor:
        if block != depth + layer:
            return x
        parts = x.unflatten(0, (len(live), samples))
        mixed = torch.stack([weight * parts[live.index(stream)] for stream, weight in used.items()]).sum(0)
        return mixed.repeat(len(live), 1, 1)

    return on_block

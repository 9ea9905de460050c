"""Buffers that official HART files carry beside the weights: derived here, so checked and dropped on loading."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hguide.backends.hart.transformer_config import TransformerConfig
from hguide.errors import CheckpointError

__all__ = ["official_buffers", "without_buffers"]

Shape = tuple[int, ...]


def official_buffers(config: TransformerConfig) -> dict[str, Shape]:
    """Keys and shapes of the persistent buffers in an official file: level of each token, mask, zero key bias.

    The mask alone has 380 MB at 1024 pixels; it is never read.

    Args:
        config: shape of the network.

    Returns:
        `{key: shape}`, disjoint from the keys of the network's weights.
    """
    length = config.length
    keys: dict[str, Shape] = {"lvl_1L": (1, length), "attn_bias_for_masking": (1, 1, length, length)}
    keys.update({f"blocks.{j}.attn.zero_k_bias": (config.width,) for j in range(config.depth)})
    return keys


def without_buffers(state: Mapping[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """The weights of an official file alone; files with and without the buffers are both fine.

    Args:
        state: a state dict.
        config: shape of the network that shall take it.

    Raises:
        CheckpointError: where a buffer says that the file belongs to another network.
    """
    buffers = official_buffers(config)
    problems = [
        f"{key} has shape {tuple(state[key].shape)}, not {shape}"
        for key, shape in buffers.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    if not problems:
        level = state.get("lvl_1L")
        expected = torch.repeat_interleave(torch.arange(len(config.lengths)), torch.tensor(config.lengths))
        if level is not None and not level.is_meta and not torch.equal(level.cpu().view(-1).long(), expected):
            problems.append(f"lvl_1L belongs to other patch_nums than {config.patch_nums}")
        problems += [
            f"{key} is not zero: keys have no bias in this network"
            for key in buffers
            if key.endswith("zero_k_bias") and key in state and not state[key].is_meta and state[key].any()
        ]
    if problems:
        raise CheckpointError("The file does not fit this network: " + "; ".join(problems) + ".")
    return {key: tensor for key, tensor in state.items() if key not in buffers}

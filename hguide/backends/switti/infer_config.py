"""Sizes of a Switti transformer read off its weights and the config.json beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hguide.backends.switti.transformer_config import SCHEDULES, TransformerConfig
from hguide.errors import CheckpointError, ConfigError

__all__ = ["infer_transformer_config", "without_buffers"]

HEAD_CHANNELS = 64
BUFFERS = ("lvl_1L", "attn_bias_for_masking")
_FIXED = {"rope": True, "use_swiglu_ffn": True}


def infer_transformer_config(
    state: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    *,
    patch_nums: tuple[int, ...] | None = None,
    text_tokens: int = 77,
) -> TransformerConfig:
    """Sizes of the transformer whose weights these are.

    Names and shapes tell all but the attention between scales (`use_ar`), the rotary numbers and the schedule (`reso`,
    or `lvl_1L` in the weights), which config.json states. Heads have 64 channels.

    Args:
        state: the published state dict.
        facts: content of config.json.
        patch_nums: the schedule, where neither tells it.
        text_tokens: of a text, padding included.

    Raises:
        CheckpointError: these are not the weights of a Switti transformer, the settings contradict them, or a size is
            told by neither.
    """
    wrong = [f"{name} = {facts[name]!r}" for name, value in _FIXED.items() if facts.get(name, value) != value]
    if wrong:
        raise CheckpointError(f"A Switti transformer with {', '.join(wrong)} is not supported.")
    if "use_ar" not in facts:
        raise CheckpointError(
            "The weights do not tell whether a scale sees those before it: put the official config.json (use_ar) "
            "beside them."
        )
    width, latent_channels = _shape(state, "word_embed.weight", 2)
    depth = len({match.group(1) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))})
    try:
        config = TransformerConfig(
            patch_nums=patch_nums or _schedule(state, facts),
            depth=depth,
            width=width,
            heads=max(width // HEAD_CHANNELS, 1),
            hidden=_shape(state, "blocks.0.ffn.gate_proj.weight", 2)[0],
            vocabulary=_shape(state, "head.weight", 2)[0],
            latent_channels=latent_channels,
            text_channels=_shape(state, "blocks.0.cross_attn.to_kv.weight", 2)[1],
            pooled_channels=_shape(state, "text_pooler.weight", 2)[1],
            text_tokens=text_tokens,
            autoregressive=bool(facts["use_ar"]),
            crop="crop_proj.weight" in state,
            rope_theta=float(facts.get("rope_theta", 10000.0)),
            rope_size=float(facts.get("rope_size", 128.0)),
        )
    except ConfigError as error:
        raise CheckpointError(f"No Switti transformer has these weights: {error}") from error
    if facts.get("depth", depth) != depth:
        raise CheckpointError(f"config.json does not fit the weights: depth is {facts['depth']}, they have {depth}.")
    scales = _shape(state, "lvl_embed.weight", 2)[0]
    if len(config.patch_nums) != scales:
        raise CheckpointError(f"The weights have {scales} scales, the schedule {config.patch_nums} has another number.")
    return config


def without_buffers(state: Mapping[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """The weights alone: the level of each token checked and dropped, the mask (357 MB at 1024 pixels) never read.

    The share of the crop in each block may be stored in any shape of one number or C; here it is `(C,)`.

    Raises:
        CheckpointError: the levels belong to another schedule, or a share of the crop has another size.
    """
    level = state.get("lvl_1L")
    expected = torch.repeat_interleave(torch.arange(len(config.lengths)), torch.tensor(config.lengths))
    if level is not None and not torch.equal(level.cpu().flatten().long(), expected):
        raise CheckpointError(f"lvl_1L belongs to other patch_nums than {config.patch_nums}.")
    kept = {key: tensor for key, tensor in state.items() if key not in BUFFERS}
    for key in [key for key in kept if key.endswith("crop_cond_scales")]:
        if kept[key].numel() not in (1, config.width):
            raise CheckpointError(f"{key} has {kept[key].numel()} numbers, expected 1 or {config.width}.")
        kept[key] = kept[key].flatten().expand(config.width)
    return kept


def _schedule(state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> tuple[int, ...]:
    if "reso" in facts:
        if facts["reso"] not in SCHEDULES:
            raise CheckpointError(
                f"reso is one of {', '.join(map(str, SCHEDULES))}, config.json has {facts['reso']!r}."
            )
        return SCHEDULES[facts["reso"]]
    tokens = state["lvl_1L"].numel() if "lvl_1L" in state else None
    found = [sides for sides in SCHEDULES.values() if sum(side * side for side in sides) == tokens]
    if not found:
        raise CheckpointError(
            "The weights do not tell their schedule: pass patch_nums, or put config.json beside them."
        )
    return found[0]


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        first = ", ".join(list(state)[:3])
        raise CheckpointError(
            f"These are not the weights of a Switti transformer: {name!r} is missing among {len(state)} entries "
            f"({first}, ...)."
        )
    shape = tuple(state[name].shape)
    if len(shape) != dimensions:
        raise CheckpointError(f"{name!r} of a Switti transformer has {dimensions} dimensions, found {shape}.")
    return shape

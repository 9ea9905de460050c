"""Weights by recipe: a full-size network whose weights need not be shipped to be the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from hguide.errors import ConfigError

__all__ = ["DERIVED_BUFFERS", "recipe_weights"]

DERIVED_BUFFERS = ("lvl_1L", "attn_bias_for_masking", "zero_k_bias", "ema_vocab_hit_SV")
"""Ends of the keys that are no weights: the recipe leaves them out."""

_WIDE = ("quantize.embedding.weight", "lvl_embed.weight", "pos_1LC", "pos_start")
_LAST_HEAD = 4.9  # above ln 100, so that a missing clamp of the attention scale is seen


def recipe_weights(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """Weights of a VAR transformer or VQVAE, each a function of its key, its shape and the seed alone.

    value = mean + std z with z = RandomState(crc32("<seed>:<key>")).standard_normal(shape), float64, cast to float32;
    mean and std follow from the key. Not an initialiser: the numbers are large, so that mistakes show.

    Args:
        shapes: `{key: shape}` of an official state dict, with or without its buffers.
        seed: of the model.

    Returns:
        `{key: float32 tensor}` in the order given, without the buffers.

    Raises:
        ConfigError: where the recipe has no rule for a key.
    """
    return {key: _weight(key, tuple(shape), seed) for key, shape in shapes.items() if not key.endswith(DERIVED_BUFFERS)}


def _weight(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    mean, std = _moments(key, shape)
    # The legacy generator is frozen by numpy's compatibility policy; default_rng is not.
    noise = np.random.RandomState(crc32(f"{seed}:{key}".encode())).standard_normal(shape)
    value = torch.from_numpy((mean + std * noise).astype(np.float32))
    if key.endswith("scale_mul_1H11"):
        value[:, -1] = _LAST_HEAD
    return value


def _moments(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    if key.endswith("scale_mul_1H11"):
        return 2.0, 1.0
    if key in _WIDE or key.endswith("ada_gss"):
        return 0.0, 0.5
    if key == "class_emb.weight":
        return 0.0, 1.0
    if key.endswith(("q_bias", "v_bias")):
        return 0.0, 0.2
    condition = "ada_lin" in key
    if key.endswith("bias"):
        return 0.0, 0.3 if condition else 0.1
    if not key.endswith("weight"):
        raise ConfigError(f"The weight recipe has no rule for the key {key!r} of shape {shape}.")
    if len(shape) == 1:
        return 1.0, 0.1
    gain = 0.5 if condition else 2.0 if key == "head.weight" else 1.0
    return 0.0, gain * prod(shape[1:]) ** -0.5

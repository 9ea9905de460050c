"""Sizes of a HART model read off its weights, checked against the config.json beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from hguide.backends.hart.tokenizer import TokenizerConfig
from hguide.backends.hart.transformer_config import TransformerConfig
from hguide.backends.var.infer_config import infer_tokenizer_config as infer_var_tokenizer_config
from hguide.errors import CheckpointError, ConfigError

__all__ = ["infer_tokenizer_config", "infer_transformer_config"]

HEAD_CHANNELS = 64
KIND = "a HART transformer"
TOKENIZER = "vae."
DISCRIMINATOR = "disc."
STATISTIC = "quantize.ema_vocab_hit_SV"
_FIXED_TOKENIZER = {"quantizer_type": "var_hybrid", "quant_conv_ks": 3, "double_decoder": False, "using_znorm": False}
_FIXED_TRANSFORMER = {"attn_type": "llama", "use_cross_attn": False}
_SAME = {
    "depth": "depth",
    "embed_dim": "width",
    "num_heads": "heads",
    "context_dim": "context_dim",
    "attn_l2_norm": "l2_norm",
    "mlp_type": "ffn",
    "use_context_norm": "context_norm",
    "diff_width": "residual_width",
    "diff_depth": "residual_depth",
}
"""Official name of a setting -> field that the weights tell."""


def infer_tokenizer_config(
    state: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None
) -> tuple[TokenizerConfig, dict[str, Tensor]]:
    """Sizes of the tokenizer of an official file, and its weights under this package's names.

    Args:
        state: the official state dict: `vae.*`, and `disc.*`, which only training reads.
        facts: content of the config.json beside it; the residual ratio and the schedule leave no trace in the weights.

    Raises:
        CheckpointError: these are not the weights of a HART tokenizer, or of a kind that is not supported.
    """
    facts = facts or {}
    own = {key.removeprefix(TOKENIZER): value for key, value in state.items() if key.startswith(TOKENIZER)}
    stray = [key for key in state if not key.startswith((TOKENIZER, DISCRIMINATOR))]
    if not own or stray:
        shown = ", ".join((stray or list(state))[:3])
        raise CheckpointError(f"These are not the weights of a HART tokenizer, whose names begin with 'vae.': {shown}.")
    own.pop(STATISTIC, None)
    _check_fixed(facts, _FIXED_TOKENIZER, "tokenizer")
    sides = tuple(facts.get("v_patch_nums", ()))
    config = infer_var_tokenizer_config(own, sides) if sides else infer_var_tokenizer_config(own)
    return replace(config, residual_ratio=facts.get("quant_resi", config.residual_ratio)), own


def infer_transformer_config(
    state: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None, patch_nums: tuple[int, ...] | None = None
) -> TransformerConfig:
    """Sizes of the transformer whose weights these are.

    Names and shapes tell all but the schedule, the number of text tokens, the pooling, the epsilon and the number of
    diffusion steps, which config.json states. Without it, `lvl_1L` tells the first two.

    Args:
        state: the official state dict.
        facts: content of the config.json beside it.
        patch_nums: the schedule, where neither tells it.

    Raises:
        CheckpointError: these are not the weights of a HART transformer, the settings contradict them, or a size is
            told by neither.
    """
    facts = facts or {}
    _check_fixed(facts, _FIXED_TRANSFORMER, "transformer")
    width, latent_channels = _shape(state, "word_embed.weight", 2)
    gated = "blocks.0.ffn.gate_proj.weight" in state
    scaled = "blocks.0.attn.scale_mul_1H11"
    sides, tokens = _schedule(state, facts, patch_nums)
    timestep = "lvl_embed.weight" not in state
    try:
        config = TransformerConfig(
            patch_nums=sides,
            depth=_count(state, r"blocks\.(\d+)\."),
            width=width,
            heads=_shape(state, scaled, 4)[1] if scaled in state else _heads(width, facts),
            hidden=_shape(state, f"blocks.0.ffn.{'gate_proj' if gated else 'fc1'}.weight", 2)[0],
            vocabulary=_shape(state, "head.weight", 2)[0],
            latent_channels=latent_channels,
            context_tokens=tokens,
            context_dim=_shape(state, "context_embed.weight", 2)[1],
            adaln=_adaln(state),
            pooling=facts.get("sep_aln_pooling_mode", "max"),
            ffn="llama" if gated else "gpt2",
            l2_norm=scaled in state,
            context_norm="context_norm.weight" in state,
            level_embedding="timestep" if timestep else "table",
            eps=facts.get("norm_eps", 1e-6),
            residual_width=_shape(state, "diffloss.net.input_proj.weight", 2)[0],
            residual_depth=_count(state, r"diffloss\.net\.res_blocks\.(\d+)\."),
            diffusion_steps=_diffusion_steps(facts),
        )
    except ConfigError as error:
        raise CheckpointError(f"No HART transformer has these weights: {error}") from error
    _check_facts(config, facts)
    return config


def _adaln(state: Mapping[str, Tensor]) -> str:
    if "blocks.0.ada_lin.1.weight" in state:
        return "linear"
    return "table" if "blocks.0.scale_shift_table" in state else "none"


def _heads(width: int, facts: Mapping[str, Any]) -> int:
    """As stated; else heads of 64 channels, as published, where they fit."""
    if "num_heads" not in facts and width % HEAD_CHANNELS:
        raise CheckpointError("The weights do not tell the number of heads: put the official config.json beside them.")
    return facts.get("num_heads", width // HEAD_CHANNELS)


def _diffusion_steps(facts: Mapping[str, Any]) -> int:
    text = str(facts.get("num_sampling_steps", "8"))
    if not text.isdigit():
        raise CheckpointError(f"num_sampling_steps is a number as text, {text!r} is not supported.")
    return int(text)


def _schedule(
    state: Mapping[str, Tensor], facts: Mapping[str, Any], given: tuple[int, ...] | None
) -> tuple[tuple[int, ...], int]:
    """Sides of the maps and number of text tokens: as given, stated, or counted in `lvl_1L`."""
    sides = given or tuple(facts.get("patch_nums", ()))
    if sides and "context_token" in facts:
        return sides, facts["context_token"]
    counted = _levels(state.get("lvl_1L"))
    if counted is None:
        if sides and "lvl_1L" in state:
            return sides, state["lvl_1L"].numel() - sum(side * side for side in sides[1:])
        raise CheckpointError(
            "The weights do not tell their schedule: put the official config.json beside them (patch_nums, "
            "context_token)."
        )
    return sides or counted[0], counted[1]


def _levels(levels: Tensor | None) -> tuple[tuple[int, ...], int] | None:
    """The same from the level of each token, None where that is no sequence of a text and growing square maps."""
    if levels is None or levels.is_meta or levels.is_floating_point():
        return None
    text, *maps = levels.flatten().unique_consecutive(return_counts=True)[1].tolist()
    sides = (1, *(math.isqrt(count) for count in maps))
    square = all(side * side == count for side, count in zip(sides[1:], maps, strict=True))
    return (sides, text) if square else None


def _check_facts(config: TransformerConfig, facts: Mapping[str, Any]) -> None:
    wrong = [
        f"{name} is {facts[name]!r}, the weights have {getattr(config, own)!r}"
        for name, own in _SAME.items()
        if name in facts and facts[name] != getattr(config, own)
    ]
    if facts.get("disable_aln") is not None:
        stated = "linear" if not facts["disable_aln"] else "table" if facts.get("shared_aln") else "none"
        if stated != config.adaln:
            wrong.append(f"disable_aln and shared_aln mean {stated!r} modulation, the weights have {config.adaln!r}")
    if "use_timestep_embed" in facts and facts["use_timestep_embed"] != (config.level_embedding == "timestep"):
        wrong.append(f"use_timestep_embed is {facts['use_timestep_embed']!r}, the weights have the other kind")
    if wrong:
        raise CheckpointError("config.json does not fit the weights: " + "; ".join(wrong) + ".")


def _check_fixed(facts: Mapping[str, Any], fixed: Mapping[str, Any], part: str) -> None:
    wrong = [
        f"{name} = {facts[name]!r}" for name, value in fixed.items() if facts.get(name, value) not in (value, None)
    ]
    if wrong:
        known = ", ".join(f"{name} = {value!r}" for name, value in fixed.items())
        raise CheckpointError(f"A HART {part} with {', '.join(wrong)} is not supported (supported: {known}).")


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        first = ", ".join(list(state)[:3])
        raise CheckpointError(
            f"These are not the weights of {KIND}: {name!r} is missing among {len(state)} entries ({first}, ...)."
        )
    shape = tuple(state[name].shape)
    if len(shape) != dimensions:
        raise CheckpointError(f"{name!r} of {KIND} has {dimensions} dimensions, found {shape}.")
    return shape


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match.group(1) for name in state if (match := re.match(pattern, name))})

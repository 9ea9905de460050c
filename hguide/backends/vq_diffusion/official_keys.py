"""The names of the official files, and this package's."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from hguide.backends.vq_diffusion.denoiser_config import DenoiserConfig
from hguide.backends.vq_diffusion.noise_schedule import NoiseSchedule
from hguide.errors import CheckpointError

__all__ = [
    "check_schedule",
    "denoiser_buffers",
    "denoiser_weights",
    "mask_length",
    "stored_tokenizer",
    "tokenizer_weights",
    "without_wrapper",
]

WHOLE_MODEL = "transformer.transformer."
NETWORK = "transformer."
EMPTY = "empty_text_embed"
CODEC = ("content_codec.enc.", "content_codec.dec.")
CODEBOOKS = ("quantize.embedding.weight", "quantize.embed.weight", "quantize.embedding")
TRAINING = ("Lt_history", "Lt_count")
_MASK = re.compile(r"blocks\.\d+\.attn[12]?\.mask")
_UNUSED = re.compile(r"loss\.|quantize\.(cluster_size|embedding_avg)$")
_PROJECTION = re.compile(r"(.*\.(?:attn_1|attn\.\d+))\.([qkv])\.(weight|bias)")


def without_wrapper(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The diffusion module of a whole model, whose names have one more "transformer." in front; or the module itself.

    Args:
        state: `ckpt["ema"]` or `ckpt["model"]`.
    """
    if not any(key.startswith(WHOLE_MODEL) for key in state):
        return dict(state)
    return {key.removeprefix(NETWORK): value for key, value in state.items() if key.startswith(NETWORK)}


def denoiser_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the denoiser by this package's names.

    Left behind are the schedule (`check_schedule`), statistics of the training, CLIP's text tower, which is not
    trained, and the unused `attn2.mask`, 4 MB per layer, which is never read.

    Args:
        state: of the diffusion module.
    """
    found = {
        key.removeprefix(NETWORK): value
        for key, value in state.items()
        if key.startswith(NETWORK) and not _MASK.fullmatch(key.removeprefix(NETWORK))
    }
    return found | ({EMPTY: state[EMPTY]} if EMPTY in state else {})


def mask_length(state: Mapping[str, Tensor]) -> int | None:
    """Tokens of a map, as the unused masks of a text model tell them; None where there are none.

    Args:
        state: of the diffusion module.
    """
    masks = [value for key, value in state.items() if _MASK.fullmatch(key.removeprefix(NETWORK))]
    return masks[0].shape[-1] if masks and masks[0].ndim == 4 else None


def denoiser_buffers(config: DenoiserConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what an official file of the diffusion module holds beside the weights and CLIP.

    Args:
        config: of the denoiser.
    """
    schedule = NoiseSchedule(config.timesteps, config.codes)
    shapes: dict[str, tuple[int, ...]] = {name: tuple(value.shape) for name, value in schedule.logarithms.items()}
    shapes |= dict.fromkeys(TRAINING, (config.timesteps,))
    if config.condition == "text":
        mask = (1, 1, config.length, config.length)
        shapes |= {f"{NETWORK}blocks.{j}.attn2.mask": mask for j in range(config.depth)}
    return shapes


def check_schedule(state: Mapping[str, Tensor], config: DenoiserConfig) -> None:
    """Compare the schedule that a file holds with this package's.

    Args:
        state: of the diffusion module; files without a schedule are fine.
        config: of the denoiser.

    Raises:
        CheckpointError: the model was trained with another schedule.
    """
    own = NoiseSchedule(config.timesteps, config.codes).logarithms
    for name, expected in own.items():
        found = state.get(name)
        if found is None or found.is_meta:
            continue
        if found.shape != expected.shape or not torch.allclose(found.float(), expected, rtol=1e-5, atol=1e-6):
            raise CheckpointError(
                f"{name} is not that of the schedule 'alpha1' with {config.timesteps} timesteps and {config.codes} "
                "codes, the one of every published model; another one is not supported."
            )


def stored_tokenizer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tokenizer inside a whole model, by its own official names; empty where there is none.

    Args:
        state: `ckpt["model"]`.
    """
    return {
        key.removeprefix(prefix): value for prefix in CODEC for key, value in state.items() if key.startswith(prefix)
    }


def tokenizer_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a tokenizer by this package's names: one codebook, queries, keys and values in one layer.

    Args:
        state: by the names of taming, of the ITHQ tokenizer, or as `diffusers_keys` translates them.

    Raises:
        CheckpointError: no codebook, or an attention layer without its queries, keys or values.
    """
    book = next((name for name in CODEBOOKS if name in state), None)
    if book is None:
        first = ", ".join(list(state)[:3])
        raise CheckpointError(
            f"These are not the weights of a VQGAN: {CODEBOOKS[0]!r} is missing among {len(state)} entries "
            f"({first}, ...)."
        )
    found = {"codebook.weight": state[book]}
    fused: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        projection = _PROJECTION.fullmatch(key)
        if projection is not None:
            fused.setdefault(f"{projection[1]}.qkv.{projection[3]}", {})[projection[2]] = value
        elif key.startswith("quantize.proj."):
            found[key.replace("quantize.proj.", "assign.")] = value
        elif key != book and not _UNUSED.match(key):
            found[key] = value
    for key, parts in fused.items():
        if set(parts) != set("qkv"):
            raise CheckpointError(f"{key}: the file has only {', '.join(sorted(parts))} of q, k and v.")
        found[key] = torch.cat([parts[name] for name in "qkv"])
    return found

"""Names and shapes of VQ-Diffusion's real-size state dicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from hguide.backends.vq_diffusion.denoiser import Denoiser
from hguide.backends.vq_diffusion.infer_config import infer_denoiser_config, infer_tokenizer_config
from hguide.backends.vq_diffusion.official_keys import (
    EMPTY,
    NETWORK,
    denoiser_buffers,
    denoiser_weights,
    mask_length,
    tokenizer_weights,
)
from hguide.backends.vq_diffusion.tokenizer import VQGAN
from hguide.experiments.parity.report import Comparison

__all__ = ["compare_manifest"]

CLIP = "condition_emb."
STATISTICS = ("quantize.cluster_size", "quantize.embedding_avg")
Shapes = dict[str, tuple[int, ...]]
_SHOWN = 3


def compare_manifest(case: str, content: Mapping[str, Any]) -> Iterator[Comparison]:
    """Compare a state dict's names and shapes with those of the network made for them, on the meta device.

    Args:
        case: name of the file.
        content: `shapes` (`{key: shape}`, buffers included), `_n_keys`, `_n_elements`.

    Raises:
        CheckpointError: no such network has such weights.
    """
    recorded: Shapes = {key: tuple(shape) for key, shape in content["shapes"].items()}
    state = {key: torch.empty(shape, device="meta") for key, shape in recorded.items()}
    if "decoder.conv_in.weight" in recorded:
        own, found, unread = _tokenizer(state)
    else:
        own, found, unread = _denoiser(state)
    wrong = sorted(key for key in own.keys() | found.keys() if own.get(key) != found.get(key))
    shown = ", ".join(wrong[:_SHOWN]) + (", ..." if len(wrong) > _SHOWN else "")
    yield Comparison(case, "keys and shapes", float(len(wrong)), 0.0, shown, len(recorded) - len(unread))
    counted = {"_n_keys": len(recorded), "_n_elements": sum(value.numel() for value in state.values())}
    for name, count in counted.items():
        if name in content:
            yield Comparison(case, name, float(abs(count - content[name])))
    if unread:
        yield Comparison(
            case, unread[0] + ", ...", None, 0.0, "not read: not trained, or by training alone", len(unread)
        )


def _denoiser(state: Mapping[str, Tensor]) -> tuple[Shapes, Shapes, list[str]]:
    """Shapes of the network, shapes of the file, and names that are not read."""
    config = infer_denoiser_config(denoiser_weights(state), length=mask_length(state))
    with torch.device("meta"):
        module = Denoiser(config)
    own = {key if key == EMPTY else NETWORK + key: tuple(value.shape) for key, value in module.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items() if not key.startswith(CLIP)}
    return own | denoiser_buffers(config), found, [key for key in state if key.startswith(CLIP)]


def _tokenizer(state: Mapping[str, Tensor]) -> tuple[Shapes, Shapes, list[str]]:
    """The same of a tokenizer, by this package's names; the table of codes is not in the file."""
    weights = tokenizer_weights(state)
    with torch.device("meta"):
        module = VQGAN(infer_tokenizer_config(weights))
    own = {key: tuple(value.shape) for key, value in module.state_dict().items() if key != "codes"}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    return own, found, [key for key in STATISTICS if key in state]

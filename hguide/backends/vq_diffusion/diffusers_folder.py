"""The parts of a VQ-Diffusion pipeline as diffusers writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hguide.backends.vq_diffusion.diffusers_keys import denoiser_weights_of, official_tokenizer
from hguide.backends.vq_diffusion.official_keys import EMPTY
from hguide.backends.weights_folder import find_weights, read_weights
from hguide.errors import CheckpointError

__all__ = ["MODEL_INDEX", "DiffusersParts", "read_folder"]

MODEL_INDEX = "model_index.json"
EMBEDDINGS = "learned_classifier_free_sampling_embeddings"
PIPELINE = "VQDiffusionPipeline"


@dataclass(frozen=True, eq=False)
class DiffusersParts:
    """Weights of a folder.

    Attributes:
        denoiser: by this package's names, the learnt null text among them where there is one.
        tokenizer: by the official names.
        heads: of the denoiser.
    """

    denoiser: Mapping[str, Tensor]
    tokenizer: Mapping[str, Tensor]
    heads: int


def read_folder(folder: Path) -> DiffusersParts:
    """The parts of a folder; nothing is read that sampling does not need.

    Args:
        folder: with `transformer`, `vqvae` and `learned_classifier_free_sampling_embeddings`.

    Raises:
        CheckpointError: another pipeline, or a part is missing or damaged.
    """
    if (folder / MODEL_INDEX).is_file():
        kind = _json(folder / MODEL_INDEX).get("_class_name")
        if kind != PIPELINE:
            raise CheckpointError(f"{folder}: a folder of {kind}, asked for {PIPELINE}.")
    facts = _json(folder / "transformer" / "config.json")
    try:
        heads = int(facts["num_attention_heads"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / 'transformer'}: config.json states no num_attention_heads.") from error
    denoiser = denoiser_weights_of(read_weights(find_weights(folder / "transformer")))
    tokenizer = official_tokenizer(read_weights(find_weights(folder / "vqvae")))
    return DiffusersParts(denoiser | _empty_text(folder / EMBEDDINGS), tokenizer, heads)


def _empty_text(folder: Path) -> dict[str, Tensor]:
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder.")
    if not _json(folder / "config.json").get("learnable", False):
        return {}
    state = read_weights(find_weights(folder))
    if "embeddings" not in state:
        raise CheckpointError(f"{folder}: no entry 'embeddings' among {', '.join(list(state)[:5]) or 'nothing'}.")
    return {EMPTY: state["embeddings"]}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: missing, or not readable as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected an object.")
    return content

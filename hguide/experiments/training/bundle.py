"""One file from a trained tokenizer and generator: what the wheel carries and `hguide.load` reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hguide.backends.checkpoints import save_safetensors
from hguide.backends.var.tokenizer import tokenizer_hash
from hguide.errors import CheckpointError
from hguide.experiments.training.tokenizer import load_tokenizer

__all__ = ["BundleConfig", "export", "run"]

LARGEST_BYTES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class BundleConfig:
    """Options of joining a trained pair.

    Attributes:
        tokenizer: weights that the tokenizer's training wrote.
        generator: weights that the generator's training wrote.
        out: file to write, `NAME.safetensors`; `hguide.load` reads it.
    """

    tokenizer: str
    generator: str
    out: str


def run(config: BundleConfig) -> Path:
    """Join a trained pair; see `export`."""
    return export(config.tokenizer, config.generator, config.out)


def export(tokenizer: str | Path, generator: str | Path, out: str | Path, extra: dict[str, Any] | None = None) -> Path:
    """Join the two weights files in float16, keys prefixed `tokenizer.` and `transformer.`.

    The metadata entry "hguide" is JSON: {"family": "var", "transformer": TransformerConfig fields, "tokenizer":
    TokenizerConfig fields, "classes": names, "training": {"tokenizer": ..., "generator": ..., **extra}}.

    Args:
        tokenizer: file that the tokenizer's training wrote.
        generator: file that the generator's training wrote.
        out: file to write; it appears whole or not at all.
        extra: more to record under "training", e.g. measures.

    Raises:
        CheckpointError: the generator was trained on another tokenizer, or the file would exceed 10 MB.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file

    network, about_tokenizer = load_tokenizer(tokenizer)
    with safe_open(str(generator), "pt") as handle:
        about_generator = json.loads(handle.metadata()["hguide"])
    if about_generator["tokenizer_hash"] != tokenizer_hash(network):
        raise CheckpointError(
            f"{generator} was trained on tokens of another tokenizer than {tokenizer}: "
            "export the pair that belongs together."
        )
    state = {f"tokenizer.{key}": value for key, value in load_file(str(tokenizer)).items()}
    state |= {f"transformer.{key}": value for key, value in load_file(str(generator)).items()}
    half = {key: value.to(torch.float16).contiguous() for key, value in state.items()}
    target = Path(out)
    metadata = {
        "family": "var",
        "name": target.stem,
        "transformer": about_generator["transformer"],
        "tokenizer": about_tokenizer["tokenizer"],
        "classes": about_tokenizer["classes"],
        "training": {
            "tokenizer": about_tokenizer["training"],
            "generator": about_generator["training"],
            **(extra or {}),
        },
    }
    size = sum(tensor.nbytes for tensor in half.values())
    if size > LARGEST_BYTES:
        raise CheckpointError(f"the bundle has {size} bytes, more than {LARGEST_BYTES}: train a smaller generator.")
    target.parent.mkdir(parents=True, exist_ok=True)
    save_safetensors(target, half, {"hguide": json.dumps(metadata)})
    return target

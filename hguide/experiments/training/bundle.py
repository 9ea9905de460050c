"""One file from a trained tokenizer and generator: what the wheel carries and `hguide.load` reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hguide.backends.checkpoints import read_metadata, read_state_dict, save_safetensors
from hguide.backends.tokenizer_hash import weights_hash
from hguide.errors import CheckpointError
from hguide.experiments.training.parts import weights_file

__all__ = ["BundleConfig", "export", "run"]

LARGEST_BYTES = 10_000_000
TOKENIZER = "tokenizer."


@dataclass(frozen=True, kw_only=True)
class BundleConfig:
    """Options of joining a trained pair.

    Attributes:
        tokenizer: weights that the tokenizer's training wrote; or the bundle or bundled name whose tokenizer was used.
        generator: weights that the generator's training wrote, of any family.
        out: file to write, `NAME.safetensors`; `hguide.load` reads it.
    """

    tokenizer: str
    generator: str
    out: str


def run(config: BundleConfig) -> Path:
    """Join a trained pair; see `export`."""
    return export(config.tokenizer, config.generator, config.out)


def export(tokenizer: str | Path, generator: str | Path, out: str | Path, extra: dict[str, Any] | None = None) -> Path:
    """Join the two weights files in float16, keys prefixed `tokenizer.` and with the names of the generator's parts.

    The metadata entry "hguide" is JSON: {"family": name, "name": of the file, one description per part ("transformer":
    TransformerConfig fields, ...), "tokenizer": TokenizerConfig fields, "classes": names, "training": {"tokenizer":
    ..., "generator": ..., **extra}}.

    Args:
        tokenizer: file that the tokenizer's training wrote; or a bundle or bundled name, whose tokenizer is taken.
        generator: file that the generator's training wrote: VAR's, or one of `write_parts`.
        out: file to write; it appears whole or not at all.
        extra: more to record under "training", e.g. measures.

    Raises:
        CheckpointError: the generator was trained on another tokenizer, or the file would exceed 10 MB.
    """
    pictures, about_tokenizer = _tokenizer(weights_file(tokenizer))
    about = _description(Path(generator))
    if about["tokenizer_hash"] not in (weights_hash(pictures), about_tokenizer.get("same_tokens_as")):
        raise CheckpointError(
            f"{generator} was trained on tokens of another tokenizer than {tokenizer}: "
            "export the pair that belongs together."
        )
    family, parts, weights = _generator(about, read_state_dict(generator))
    state = {f"{TOKENIZER}{key}": value for key, value in pictures.items()} | weights
    half = {key: value.to(torch.float16) if value.is_floating_point() else value for key, value in state.items()}
    target = Path(out)
    metadata = {
        "family": family,
        "name": target.stem,
        **parts,
        "tokenizer": about_tokenizer["tokenizer"],
        "classes": about_tokenizer["classes"],
        "training": {"tokenizer": about_tokenizer["training"], "generator": about["training"], **(extra or {})},
    }
    size = sum(tensor.nbytes for tensor in half.values())
    if size > LARGEST_BYTES:
        raise CheckpointError(f"the bundle has {size} bytes, more than {LARGEST_BYTES}: train a smaller generator.")
    target.parent.mkdir(parents=True, exist_ok=True)
    save_safetensors(target, half, {"hguide": json.dumps(metadata)})
    return target


def _tokenizer(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tokenizer's weights and description, from its training's file or from a bundle."""
    about, state = _description(path), read_state_dict(path)
    if any(key.startswith(TOKENIZER) for key in state):
        about = about | {"training": about["training"]["tokenizer"]}
        state = {key.removeprefix(TOKENIZER): value for key, value in state.items() if key.startswith(TOKENIZER)}
    return state, about


def _generator(about: dict[str, Any], state: dict[str, Tensor]) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Family, description of each part, and weights behind the parts' names."""
    if about["family"] == "var-transformer":
        return "var", {"transformer": about["transformer"]}, {f"transformer.{key}": v for key, v in state.items()}
    return about["family"], about["parts"], state


def _description(path: Path) -> dict[str, Any]:
    found = read_metadata(path).get("hguide")
    if found is None:
        raise CheckpointError(f"{path}: carries no description; give a file that `hguide train` wrote.")
    return json.loads(found)

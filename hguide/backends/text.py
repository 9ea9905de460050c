"""Prompts to embeddings: what the text encoders of all families have in common, and a cache of them on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hguide.backends.checkpoints import read_state_dict, save_safetensors
from hguide.errors import CheckpointError, ConfigError, ShapeError

__all__ = [
    "CachedTextEncoder",
    "TextEmbedding",
    "TextEncoder",
    "class_prompts",
    "embed",
    "folder_fingerprint",
    "text_conditions",
]

READ_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class TextEmbedding:
    """What a text encoder says of one prompt; given in place of a prompt, no encoder is needed.

    Args:
        embedding: `(tokens, dim)` float, padding included.
        mask: `(tokens,)` True where a token is no padding.

    Raises:
        ShapeError: other shapes, or a mask that is not boolean.
    """

    embedding: Float[Tensor, "tokens dim"]
    mask: Bool[Tensor, " tokens"]

    def __post_init__(self) -> None:
        shape = tuple(self.embedding.shape)
        if len(shape) != 2 or tuple(self.mask.shape) != shape[:1] or self.mask.dtype != torch.bool:
            raise ShapeError(
                f"TextEmbedding: embedding is (tokens, dim) and mask (tokens,) bool, "
                f"got {shape} and {tuple(self.mask.shape)} {self.mask.dtype}."
            )


@runtime_checkable
class TextEncoder(Protocol):
    """Prompts to embeddings of a fixed number of tokens: T5, Qwen2, CLIP, or a small one of our own.

    Attributes:
        dim: channels of an embedding.
        fingerprint: hash of weights, vocabulary and rules, known before the weights are loaded; encoders of equal
            fingerprints give equal embeddings.
    """

    @property
    def dim(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def encode(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "n tokens dim"], Bool[Tensor, "n tokens"]]:
        """Embeddings of prompts, and where their tokens are no padding."""
        ...


def embed(encoder: TextEncoder, prompts: Sequence[str]) -> list[TextEmbedding]:
    """One embedding per prompt; each different prompt is encoded once and alone.

    Alone, because matrix products of other batch shapes differ in their last bits: an image must not depend on the
    prompts beside its own.

    Args:
        encoder: any.
        prompts: repeats are allowed.
    """
    known: dict[str, TextEmbedding] = {}
    for prompt in prompts:
        if prompt not in known:
            embeddings, mask = encoder.encode([prompt])
            known[prompt] = TextEmbedding(embeddings[0], mask[0])
    return [known[prompt] for prompt in prompts]


def class_prompts(name: str, conditions: Sequence[Any], classes: Sequence[str]) -> list[Any]:
    """Class numbers as the names that are their prompts; everything else as it is.

    Args:
        name: of the generator, for messages.
        conditions: one per sample.
        classes: prompts by class number; empty for a model of free text, whose numbers stay numbers.

    Raises:
        ConfigError: a number that is no class.
    """
    found = []
    for each in conditions:
        if classes and isinstance(each, int) and not isinstance(each, bool):
            if not 0 <= each < len(classes):
                raise ConfigError(f"{name}: a class is a number from 0 to {len(classes) - 1}, got {each}.")
            each = classes[each]
        found.append(each)
    return found


def text_conditions(
    name: str, conditions: Sequence[Any], encoder: TextEncoder | None, dim: int
) -> list[TextEmbedding | None]:
    """Prompts, embeddings and None (the null condition) to embeddings and None.

    Args:
        name: of the generator, for messages.
        conditions: one per sample.
        encoder: of prompts; None where the generator has none.
        dim: channels that the generator takes.

    Raises:
        ConfigError: a prompt without an encoder, an embedding of another width, or something else.
    """
    prompts = [each for each in conditions if isinstance(each, str)]
    if prompts and encoder is None:
        raise ConfigError(
            f"{name}: the prompt {prompts[0]!r} needs a text encoder, but none was given; load the model with "
            "text_encoder= (on a command line: --load.text_encoder FOLDER), or give a TextEmbedding in place of the "
            "prompt."
        )
    encoded = dict(zip(prompts, embed(encoder, prompts), strict=True)) if encoder is not None else {}
    found = [encoded[each] if isinstance(each, str) else each for each in conditions]
    for each in found:
        if each is not None and not isinstance(each, TextEmbedding):
            raise ConfigError(f"{name}: a condition is a prompt, a TextEmbedding or None, got {each!r}.")
        if each is not None and each.embedding.shape[1] != dim:
            raise ConfigError(f"{name}: takes text embeddings of {dim} channels, got {each.embedding.shape[1]}.")
    return found


class CachedTextEncoder:
    """A text encoder that remembers its embeddings in a folder: a known prompt does not even load it.

    Args:
        encoder: of prompts that are not in the folder yet.
        folder: made when first written to; one safetensors file per encoder and prompt, safe to share between
            processes and encoders. Damaged files are written again.
    """

    def __init__(self, encoder: TextEncoder, folder: str | Path) -> None:
        self.encoder = encoder
        self.folder = Path(folder).expanduser()

    @property
    def dim(self) -> int:
        """Channels of an embedding."""
        return self.encoder.dim

    @property
    def fingerprint(self) -> str:
        """Of the encoder."""
        return self.encoder.fingerprint

    def encode(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "n tokens dim"], Bool[Tensor, "n tokens"]]:
        """Embeddings from the folder where they are there, else from the encoder, prompt by prompt; on the CPU."""
        found = [self._remembered(prompt) or self._encoded(prompt) for prompt in prompts]
        return torch.stack([each.embedding for each in found]), torch.stack([each.mask for each in found])

    def path(self, prompt: str) -> Path:
        """The file of a prompt."""
        key = hashlib.sha256(f"{self.fingerprint}\0{prompt}".encode()).hexdigest()
        return self.folder / f"{key}.safetensors"

    def _remembered(self, prompt: str) -> TextEmbedding | None:
        path = self.path(prompt)
        if not path.is_file():
            return None
        try:
            content = read_state_dict(path)
            return TextEmbedding(content["embedding"], content["mask"])
        except (CheckpointError, KeyError, ShapeError):
            return None

    def _encoded(self, prompt: str) -> TextEmbedding:
        (found,) = embed(self.encoder, [prompt])
        own = {"embedding": found.embedding.cpu(), "mask": found.mask.cpu()}
        self.folder.mkdir(parents=True, exist_ok=True)
        save_safetensors(self.path(prompt), own, {"encoder": self.fingerprint, "prompt": prompt})
        return TextEmbedding(own["embedding"], own["mask"])


def folder_fingerprint(folder: str | Path, rules: str = "") -> str:
    """SHA-256 over the names and contents of all files of a model's folder, and over how it is used.

    Args:
        folder: of weights, configuration and vocabulary.
        rules: whatever else decides the embeddings: length, padding, an instruction, the type computed in.

    Raises:
        CheckpointError: no such folder.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; a text encoder is a folder of weights and vocabulary.")
    digest = hashlib.sha256(rules.encode())
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        digest.update(f"\0{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while part := file.read(READ_AT_ONCE):
                digest.update(part)
    return digest.hexdigest()

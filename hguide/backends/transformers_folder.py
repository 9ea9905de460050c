"""Text encoders in folders as transformers writes them: width known at once, the rest loaded with the first prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from hguide.errors import CheckpointError, ConfigError

__all__ = ["LOCAL", "hidden_size", "load_encoder"]

LOCAL: Mapping[str, bool] = MappingProxyType({"local_files_only": True, "trust_remote_code": False})
"""How every part of such a folder is read: nothing is fetched, and code that lies in it is not run."""


def hidden_size(path: Path, what: str = "text encoder") -> int:
    """Channels of an encoder's hidden states, from its config.json alone.

    Args:
        path: of the folder.
        what: it should be, for the message.

    Raises:
        CheckpointError: no such folder, or no usable config.json in it.
    """
    try:
        facts = json.loads((path / "config.json").read_text())
        return int(facts.get("hidden_size") or facts["text_config"]["hidden_size"])
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: no {what}: its config.json is missing or states no hidden_size.") from error


def load_encoder(
    path: Path, kind: str, device: torch.device | str, dtype: torch.dtype, words: Path | None = None
) -> tuple[Any, Any]:
    """Model and tokenizer of a folder, the model in evaluation mode; nothing is fetched, no code of theirs is run.

    Args:
        path: of the folder.
        kind: class of transformers, as "CLIPTextModel".
        device: where the model computes.
        dtype: of the model.
        words: folder of the vocabulary, where it is another one.

    Raises:
        ConfigError: transformers is not installed.
        CheckpointError: transformers cannot load it.
    """
    try:
        import transformers
    except ImportError as error:
        raise ConfigError("prompts need the text extra: pip install 'hguide[text]'.") from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(words or path, **LOCAL)
        model = getattr(transformers, kind).from_pretrained(path, **LOCAL)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: transformers cannot load the text encoder ({reason[:200]}).") from error
    return model.to(device, dtype).eval().requires_grad_(False), tokenizer

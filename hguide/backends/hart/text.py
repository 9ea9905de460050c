"""HART's text encoder: Qwen2 through transformers, with the official instruction in front of each prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hguide.backends.text import folder_fingerprint
from hguide.backends.transformers_folder import hidden_size, load_encoder
from hguide.errors import CheckpointError, ConfigError

__all__ = ["INSTRUCTION_SHA256", "MAX_TOKENS", "QwenTextEncoder", "official_instruction", "qwen_text_encoder"]

MAX_TOKENS = 300
VOCABULARY = ("tokenizer.json", "vocab.json")
INSTRUCTION_LENGTH = 705
INSTRUCTION_SHA256 = "424f7aa7b1119f8ed1e329140e5941dfe308183bea0af59041dad5527a9b8f20"
"""Of the instruction that the published model was trained with; the text is not part of this package."""

Load = Callable[[], tuple[Any, Any]]


class QwenTextEncoder:
    """Last hidden states of a language model over the raw prompt (arXiv 2410.10812, official `encode_prompts`).

    The prompt, without any chat template, is cut or padded to `max_tokens`; a token is padding where it is the pad
    token. The instruction is put in front of it, unpadded and never masked; the model runs over both with its default
    positions; the instruction's part is dropped. Outputs at padding are kept as they are.

    Args:
        load: gives the language model (with `last_hidden_state` after its final norm) and its tokenizer, when first
            needed.
        dim: channels of its hidden states.
        fingerprint: see `TextEncoder`; called when first needed.
        system_prompt: the instruction, or None for none.
        max_tokens: of a prompt, padding included; also the cap of the instruction.
    """

    def __init__(
        self,
        load: Load,
        dim: int,
        fingerprint: Callable[[], str],
        *,
        system_prompt: str | None,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self._load = load
        self._fingerprint = fingerprint
        self.dim = dim
        self.system_prompt = system_prompt
        self.max_tokens = max_tokens

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the model's files and of the rules."""
        rules = f"{self._fingerprint()}\0{self.max_tokens}\0{self.system_prompt}"
        return hashlib.sha256(rules.encode()).hexdigest()

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        return self._load()

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "n tokens dim"], Bool[Tensor, "n tokens"]]:
        """Embeddings `(n, max_tokens, dim)` float32, and where their tokens are no padding.

        Args:
            prompts: raw texts.
        """
        model, tokenizer = self._parts
        given = tokenizer(
            list(prompts), padding="max_length", max_length=self.max_tokens, truncation=True, return_tensors="pt"
        )
        tokens = given["input_ids"]
        mask = tokens != tokenizer.pad_token_id
        attended = mask
        before = 0
        if self.system_prompt is not None:
            system = tokenizer(self.system_prompt, max_length=self.max_tokens, truncation=True, return_tensors="pt")
            head = system["input_ids"].expand(len(tokens), -1)
            before = head.shape[1]
            tokens = torch.cat([head, tokens], dim=1)
            attended = torch.cat([torch.ones_like(head, dtype=torch.bool), mask], dim=1)
        device = next(model.parameters()).device
        output = model(input_ids=tokens.to(device), attention_mask=attended.to(device).long(), use_cache=False)
        return output.last_hidden_state[:, before:].float(), mask.to(device)


def qwen_text_encoder(
    folder: str | Path,
    *,
    system_prompt: str | None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> QwenTextEncoder:
    """The encoder of a folder of the published layout (`mit-han-lab/Qwen2-VL-1.5B-Instruct`).

    Args:
        folder: weights, config.json and vocabulary; only config.json is read before the first prompt.
        system_prompt: the instruction, or None for none.
        device: where the language model computes.
        dtype: of the language model.

    Raises:
        CheckpointError: no such folder, or no usable config.json in it; with the first prompt, also no vocabulary or
            no weights.
    """
    path = Path(folder).expanduser()
    dim = hidden_size(path)

    def load() -> tuple[Any, Any]:
        if not any((path / name).is_file() for name in VOCABULARY):
            # transformers would go on with an empty vocabulary.
            raise CheckpointError(f"{path}: a text encoder without vocabulary ({' or '.join(VOCABULARY)}).")
        return load_encoder(path, "AutoModel", device, dtype)

    return QwenTextEncoder(load, dim, lambda: folder_fingerprint(path, str(dtype)), system_prompt=system_prompt)


def official_instruction(source: str | Path) -> str:
    """The instruction of the published model, from a text or a file that holds it, checked by its hash.

    It is found in the official repository (`hart/utils/constants.py`): 705 characters, from "Given a user prompt,
    generate " to "User Prompt:" and a line end.

    Args:
        source: the text itself, or the path of a UTF-8 file; a missing or additional line end is repaired.

    Raises:
        ConfigError: another text.
    """
    text = str(source)
    named = isinstance(source, Path) or (len(text) < 256 and "\n" not in text)
    if named:
        try:
            text = Path(text).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the instruction is a text of {INSTRUCTION_LENGTH} characters or a file: {error}."
            ) from error
    for candidate in (text, text.rstrip("\n") + "\n"):
        if hashlib.sha256(candidate.encode()).hexdigest() == INSTRUCTION_SHA256:
            return candidate
    raise ConfigError(
        f"this is not the instruction that HART was trained with: {len(text)} characters, expected "
        f"{INSTRUCTION_LENGTH} of sha256 {INSTRUCTION_SHA256[:12]}; copy it from the official hart/utils/constants.py."
    )

"""VQ-Diffusion's text encoder: the text tower of CLIP ViT-B/32 through transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from hguide.backends.text import folder_fingerprint
from hguide.backends.transformers_folder import hidden_size, load_encoder

__all__ = ["CLIPTextEncoder", "clip_text_encoder"]

LENGTH = 77
PAD = 0
Load = Callable[[], tuple[Any, Any]]


class CLIPTextEncoder:
    """Hidden states of CLIP's text tower after its final norm, each token's vector divided by its length.

    A prompt is cut to `length` tokens, start and end included, and padded with token 0, not with the end token that
    transformers would take. The tower sees no padding mask, and the denoiser attends to all positions. The official
    tower runs in float16; here in the type of the model.

    Args:
        load: gives a `CLIPTextModel` and its tokenizer, when first needed.
        dim: channels of the hidden states.
        fingerprint: see `TextEncoder`; called when first needed.
        length: tokens of a prompt, padding included.

    Source: official program of arXiv 2111.14822, text-to-image configurations.
    """

    def __init__(self, load: Load, dim: int, fingerprint: Callable[[], str], *, length: int = LENGTH) -> None:
        self._load = load
        self._fingerprint = fingerprint
        self.dim = dim
        self.length = length

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the model's files and of the rules."""
        return hashlib.sha256(f"{self._fingerprint()}\0{self.length}\0{PAD}\0unit".encode()).hexdigest()

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        return self._load()

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "n tokens dim"], Bool[Tensor, "n tokens"]]:
        """Embeddings `(n, length, dim)` float32 of unit vectors, and where their tokens are no padding.

        Args:
            prompts: raw texts; the empty one included.
        """
        model, tokenizer = self._parts
        # Lower case is the tokenizer's own rule; said again for one that was set up without it.
        texts = [prompt.lower() for prompt in prompts]
        rows = tokenizer(texts, truncation=True, max_length=self.length)["input_ids"]
        padded = torch.tensor([[*row, *[PAD] * (self.length - len(row))] for row in rows])
        mask = torch.tensor([[place < len(row) for place in range(self.length)] for row in rows])
        device = next(model.parameters()).device
        hidden = model(input_ids=padded.to(device)).last_hidden_state.float()
        return F.normalize(hidden, dim=-1), mask.to(device)


def clip_text_encoder(
    folder: str | Path,
    *,
    tokenizer: str | Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> CLIPTextEncoder:
    """The encoder of a folder as transformers writes it (`openai/clip-vit-base-patch32`, or its text part alone).

    Args:
        folder: weights and config.json; only config.json is read before the first prompt.
        tokenizer: folder of the vocabulary, where it is another one.
        device: where the tower computes.
        dtype: of the tower; the official one is float16.

    Raises:
        CheckpointError: no such folder, or no usable config.json in it.
    """
    path = Path(folder).expanduser()
    words = path if tokenizer is None else Path(tokenizer).expanduser()
    dim = hidden_size(path, "CLIP text encoder")

    def fingerprint() -> str:
        return folder_fingerprint(path, str(dtype)) + ("" if words == path else folder_fingerprint(words))

    return CLIPTextEncoder(lambda: load_encoder(path, "CLIPTextModel", device, dtype, words), dim, fingerprint)

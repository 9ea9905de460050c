"""Switti's text encoder: the text towers of CLIP ViT-L/14 and ViT-bigG/14 through transformers."""

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
from hguide.errors import ConfigError

__all__ = ["SwittiTextEncoder", "switti_text_encoder"]

LENGTH = 77
Tower = tuple[Any, Any]
Load = Callable[[], tuple[Tower, Tower]]


class SwittiTextEncoder:
    """Last hidden states of two towers beside each other, and the second's pooled state as one row more.

    A prompt is cut and padded to `length` tokens by each tower's own vocabulary. The last of the `length + 1` rows has
    the pooled state of the second tower in its first channels and zeros after it, so that an embedding stays one matrix
    for caches and files. The mask is the second tower's, for the tokens of both.

    *Reconstructed*: that the towers themselves see no padding mask.

    Args:
        load: gives model and tokenizer of both towers, when first needed.
        dim: channels of both towers together.
        fingerprint: see `TextEncoder`; called when first needed.
        length: tokens of a prompt, padding included.

    Source: arXiv 2412.01819, and notes on the official program.
    """

    def __init__(self, load: Load, dim: int, fingerprint: Callable[[], str], *, length: int = LENGTH) -> None:
        self._load = load
        self._fingerprint = fingerprint
        self.dim = dim
        self.length = length

    @cached_property
    def fingerprint(self) -> str:
        """Hash of both models' files and of the rules."""
        return hashlib.sha256(f"{self._fingerprint()}\0{self.length}\0pooled row".encode()).hexdigest()

    @cached_property
    def _towers(self) -> tuple[Tower, Tower]:
        return self._load()

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "n rows dim"], Bool[Tensor, "n rows"]]:
        """Embeddings `(n, length + 1, dim)` float32, and where their tokens are no padding.

        Args:
            prompts: raw texts; the empty one included.
        """
        states, pooled, mask = [], None, None
        for model, tokenizer in self._towers:
            given = tokenizer(
                list(prompts), padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
            )
            found = model(input_ids=given["input_ids"].to(next(model.parameters()).device))
            states.append(found.last_hidden_state.float())
            pooled, mask = found.pooler_output.float(), given["attention_mask"].bool()
        if pooled is None or mask is None:
            raise ConfigError("a text encoder of Switti has two towers.")
        last = F.pad(pooled, (0, self.dim - pooled.shape[-1])).unsqueeze(1)
        embeddings = torch.cat([torch.cat(states, dim=-1), last], dim=1)
        return embeddings, F.pad(mask, (0, 1), value=True).to(embeddings.device)


def switti_text_encoder(
    first: str | Path, second: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> SwittiTextEncoder:
    """The encoder of two folders as transformers writes them.

    Args:
        first: of `openai/clip-vit-large-patch14`; only config.json is read before the first prompt.
        second: of `laion/CLIP-ViT-bigG-14-laion2B-39B-b160k`.
        device: where the towers compute.
        dtype: of the towers.

    Raises:
        CheckpointError: no such folder, or no usable config.json in it.
    """
    paths = [Path(each).expanduser() for each in (first, second)]

    def load() -> tuple[Tower, Tower]:
        one, two = (load_encoder(path, "CLIPTextModel", device, dtype) for path in paths)
        return one, two

    width = sum(hidden_size(path, "CLIP text encoder") for path in paths)
    return SwittiTextEncoder(load, width, lambda: "".join(folder_fingerprint(path, str(dtype)) for path in paths))

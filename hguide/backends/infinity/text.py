"""The text encoder of Infinity: the encoder half of T5, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hguide.backends.text import folder_fingerprint
from hguide.backends.transformers_folder import LOCAL
from hguide.errors import CheckpointError, ConfigError

__all__ = ["T5TextEncoder"]

LENGTH = 512


class T5TextEncoder:
    """Prompts to the last hidden state of a T5 encoder, one prompt at a time, as Infinity was trained.

    Each prompt is padded to `length`, cut there, and encoded under its attention mask; the end token counts as text.
    Rows of padding are set to zero: nothing reads them. Weights and vocabulary are loaded when first used; wrap the
    encoder in `hguide.backends.text.CachedTextEncoder` to keep its results on disk.

    Args:
        folder: of a T5 model in the format of transformers, for instance a copy of google/flan-t5-xl.
        length: tokens of a padded prompt.
        dtype: of the weights; results are float32.
        device: where it computes.

    Raises:
        CheckpointError: no such folder.

    Source: arXiv 2412.04431, code.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        length: int = LENGTH,
        dtype: torch.dtype = torch.float16,
        device: torch.device | str = "cpu",
    ) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder; pass the folder of a T5 encoder (google/flan-t5-xl).")
        if length < 1:
            raise ConfigError(f"length is a number of tokens, at least 1, got {length}.")
        self.length = length
        self.dtype = dtype
        self.device = torch.device(device)

    @cached_property
    def dim(self) -> int:
        """Channels of an embedding, read from the configuration alone."""
        transformers = _transformers()
        try:
            return int(transformers.AutoConfig.from_pretrained(self.folder, **LOCAL).d_model)
        except (OSError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{self.folder}: no configuration of a T5 model ({_first_line(error)}).") from error

    @cached_property
    def fingerprint(self) -> str:
        """Of the folder, the length and the type."""
        return folder_fingerprint(self.folder, f"t5 length={self.length} dtype={self.dtype}")

    @cached_property
    def tokenizer(self) -> Any:
        """The vocabulary; with the rules that T5 was trained with (`legacy`)."""
        transformers = _transformers()
        try:
            return transformers.AutoTokenizer.from_pretrained(self.folder, legacy=True, **LOCAL)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.folder}: no vocabulary of a T5 model ({_first_line(error)}).") from error

    @cached_property
    def model(self) -> Any:
        """The encoder, in evaluation mode."""
        transformers = _transformers()
        # The older name of the option still works up to version 4.
        name = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
        try:
            model = transformers.T5EncoderModel.from_pretrained(self.folder, **LOCAL, **{name: self.dtype})
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.folder}: no weights of a T5 encoder ({_first_line(error)}).") from error
        return model.eval().requires_grad_(False).to(self.device)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "n tokens dim"], Bool[Tensor, "n tokens"]]:
        """Embeddings of prompts, and where their tokens are no padding.

        Args:
            prompts: any text, the empty one included.

        Returns:
            float32 embeddings of `length` tokens, zero at padding; and the mask. Both on the encoder's device.
        """
        pairs = [self._encode_one(prompt) for prompt in prompts]
        return torch.cat([embedding for embedding, _ in pairs]), torch.cat([mask for _, mask in pairs])

    def _encode_one(self, prompt: str) -> tuple[Tensor, Tensor]:
        tokens = self.tokenizer(
            [prompt], max_length=self.length, padding="max_length", truncation=True, return_tensors="pt"
        )
        mask = tokens["attention_mask"].to(self.device)
        found = self.model(input_ids=tokens["input_ids"].to(self.device), attention_mask=mask)["last_hidden_state"]
        return found.float() * mask.unsqueeze(-1), mask.bool()


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            "prompts need the text extra (pip install 'hguide[text]'); or give a TextEmbedding in place of the prompt."
        ) from error
    return transformers


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]

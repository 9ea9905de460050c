"""A tiny text encoder: the bytes of a prompt through one transformer layer, for the small bundled models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hguide.backends.model_file import filled
from hguide.errors import ConfigError

__all__ = ["TEXT_ENCODER", "TinyTextConfig", "TinyTextEncoder", "saved_tiny_text"]

TEXT_ENCODER = "text_encoder."
"""In front of the names of its weights in a model's file, whose description has its sizes under "text_encoder"."""

BYTES = 256
PADDING = 0


@dataclass(frozen=True)
class TinyTextConfig:
    """Shape of a tiny text encoder.

    Attributes:
        dim: channels of an embedding, a multiple of `heads`.
        tokens: bytes read of a prompt; longer ones are cut, shorter ones padded at the end.
        heads: attention heads.
        layers: transformer layers.
    """

    dim: int = 64
    tokens: int = 24
    heads: int = 4
    layers: int = 1

    def __post_init__(self) -> None:
        if min(self.dim, self.tokens, self.heads, self.layers) < 1 or self.dim % self.heads:
            raise ConfigError(f"sizes are positive and dim a multiple of heads, got {self}.")


class TinyTextEncoder(nn.Module):
    """Prompts to embeddings like T5, Qwen2 or CLIP (`hguide.backends.text.TextEncoder`), trained with its generator.

    x = bytes + positions; per layer x += attention(norm x), x += mlp(norm x); the output is normalised. Upper and lower
    case are the same to it.

    Args:
        config: its shape.
    """

    def __init__(self, config: TinyTextConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TinyTextConfig()
        self.byte_embed = nn.Embedding(BYTES + 1, config.dim, padding_idx=PADDING)
        self.positions = nn.Parameter(torch.randn(config.tokens, config.dim) * 0.02)
        layer = nn.TransformerEncoderLayer(
            config.dim,
            config.heads,
            4 * config.dim,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.dim)

    @property
    def dim(self) -> int:
        """Channels of an embedding."""
        return self.config.dim

    @property
    def fingerprint(self) -> str:
        """Hash of shape and weights."""
        digest = hashlib.sha256(repr(sorted(asdict(self.config).items())).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def tokenise(self, prompts: Sequence[str]) -> tuple[Int[Tensor, "n tokens"], Bool[Tensor, "n tokens"]]:
        """Bytes plus one, 0 for padding, and where there is none.

        Raises:
            ConfigError: an empty prompt.
        """
        rows = [prompt.strip().lower().encode()[: self.config.tokens] for prompt in prompts]
        if not all(rows):
            raise ConfigError("a prompt must not be empty: this text encoder was trained on words alone.")
        ids = torch.zeros(len(rows), self.config.tokens, dtype=torch.int64)
        for row, text in enumerate(rows):
            ids[row, : len(text)] = torch.tensor(list(text)) + 1
        return ids, ids != PADDING

    def forward(self, ids: Int[Tensor, "n tokens"], mask: Bool[Tensor, "n tokens"]) -> Float[Tensor, "n tokens dim"]:
        """Embeddings of tokens; zeros at padding, which no other token sees."""
        x = self.byte_embed(ids) + self.positions
        return self.norm(self.layers(x, src_key_padding_mask=~mask)) * mask[..., None]

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "n tokens dim"], Bool[Tensor, "n tokens"]]:
        """Embeddings of prompts and where their tokens are no padding; float32 on the CPU."""
        ids, mask = self.tokenise(prompts)
        device = self.positions.device
        return self(ids.to(device), mask.to(device)).float().cpu(), mask


def saved_tiny_text(config: TinyTextConfig, weights: Mapping[str, Tensor]) -> TinyTextEncoder:
    """The text encoder that a model's file carries, in evaluation mode.

    Args:
        config: its sizes.
        weights: its state dict.

    Raises:
        CheckpointError: the weights do not fit.
    """
    return filled(lambda: TinyTextEncoder(config), weights).eval().requires_grad_(False)

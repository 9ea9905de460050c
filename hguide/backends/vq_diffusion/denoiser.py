"""The network of VQ-Diffusion: logits of the clean tokens from noisy ones (arXiv 2111.14822)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hguide.backends.vq_diffusion.blocks import EPSILON, ClassBlock, TextBlock
from hguide.backends.vq_diffusion.denoiser_config import DenoiserConfig

__all__ = ["ContentEmbedding", "Denoiser", "DenoiserConfig"]


class ContentEmbedding(nn.Module):
    """Code, row and column of a token."""

    def __init__(self, config: DenoiserConfig) -> None:
        """Make the tables.

        Args:
            config: of the denoiser.
        """
        super().__init__()
        rows, columns = config.position_grid
        self.emb = nn.Embedding(config.codes + 1, config.width)
        self.height_emb = nn.Embedding(rows, config.width)
        self.width_emb = nn.Embedding(columns, config.width)

    def forward(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        """emb[token] + height_emb[i // columns] + width_emb[i % columns]; see `DenoiserConfig.position_grid`."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        columns = self.width_emb.num_embeddings
        return self.emb(tokens) + (self.height_emb(place // columns) + self.width_emb(place % columns))


class Denoiser(nn.Module):
    """Noisy tokens, timestep and condition to logits of the clean tokens; state-dict keys are the published ones."""

    def __init__(self, config: DenoiserConfig) -> None:
        """Make the network.

        Args:
            config: its shape.
        """
        super().__init__()
        self.config = config
        block = ClassBlock if config.condition == "class" else TextBlock
        self.content_emb = ContentEmbedding(config)
        self.blocks = nn.ModuleList(block(config) for _ in range(config.depth))
        self.to_logits = nn.Sequential(nn.LayerNorm(config.width, eps=EPSILON), nn.Linear(config.width, config.codes))
        if config.condition == "text" and config.learned_null:
            self.empty_text_embed = nn.Parameter(torch.randn(config.text_length, config.text_channels))

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self.content_emb.emb.weight.device

    def forward(
        self, tokens: Int[Tensor, "b l"], timestep: int | Int[Tensor, " b"], condition: Tensor
    ) -> Float[Tensor, "b l k"]:
        """Logits of the clean tokens.

        Args:
            tokens: noisy tokens from 0 to K, K being the mask.
            timestep: t from 0 to T - 1, of all samples or of each; T - 1 is the noisiest.
            condition: labels `(b,)`, `config.null_label` for none; or text embeddings `(b, s, c)`.

        Returns:
            raw logits over the K codes, without one of the mask.
        """
        hidden = self.content_emb(tokens)
        if isinstance(timestep, int):
            row = torch.full((1,), timestep, device=tokens.device)
        else:
            row = timestep.to(tokens.device).reshape(-1)
        for block in self.blocks:
            hidden = block(hidden, row, condition)
        return self.to_logits(hidden)

"""The Switti transformer: text, scales and head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from hguide.backends.attention import Attend, attend
from hguide.backends.cache import KeyValueCache
from hguide.backends.switti.block import Block, BlockConstants
from hguide.backends.switti.crop import CROP, FourierEmbedding
from hguide.backends.switti.rope import Rotation, map_rotation
from hguide.backends.switti.transformer_config import TransformerConfig
from hguide.errors import ShapeError

__all__ = ["Conditioning", "SwittiTransformer"]


@dataclass(frozen=True, eq=False)
class Conditioning:
    """All that depends on text and weights only: computed once per run, read at every scale.

    Attributes:
        start: input of the first scale.
        mask: True where the text is no padding.
        blocks: constants of each block.
        head_gain: 1 + scale of the head's norm.
        head_shift: shift of the head's norm.
    """

    start: Float[Tensor, "rows 1 c"]
    mask: Bool[Tensor, "rows 1 1 t"]
    blocks: tuple[BlockConstants, ...]
    head_gain: Float[Tensor, "rows 1 c"]
    head_shift: Float[Tensor, "rows 1 c"]

    def keep(self, rows: int) -> Conditioning:
        """The first `rows` rows, as views."""
        blocks = tuple(block.keep(rows) for block in self.blocks)
        return Conditioning(self.start[:rows], self.mask[:rows], blocks, self.head_gain[:rows], self.head_shift[:rows])


class SwittiTransformer(nn.Module):
    """The Switti transformer (arXiv 2412.01819); its parameters carry the names of the published checkpoints.

    The module holds weights only. `conditioning` is computed once per run; a step is `first_input` or `embed`, then
    `forward_blocks`, with the cache of the run in the autoregressive variant, then `forward_head`.
    """

    def __init__(self, config: TransformerConfig) -> None:
        """Make the network with PyTorch's default weights.

        Args:
            config: its shape.
        """
        super().__init__()
        self.config = config
        width = config.width
        self.pos_start = nn.Parameter(torch.zeros(1, 1, width))
        self.word_embed = nn.Linear(config.latent_channels, width)
        self.text_pooler = nn.Linear(config.pooled_channels, width)
        self.lvl_embed = nn.Embedding(len(config.patch_nums), width)
        if config.crop:
            self.crop_embed = FourierEmbedding(width // (2 * len(CROP)))
            self.crop_proj = nn.Linear(width, width)
        self.blocks = cast("Sequence[Block]", nn.ModuleList(Block(config) for _ in range(config.depth)))
        self.head_nm = nn.ModuleDict({"ada_lin": nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))})
        self.head = nn.Linear(width, config.vocabulary)

    def conditioning(
        self, text: Float[Tensor, "rows t ct"], pooled: Float[Tensor, "rows cp"], mask: Bool[Tensor, "rows t"]
    ) -> Conditioning:
        """What depends on the text only.

        Args:
            text: hidden states of both towers beside each other.
            pooled: pooled state of the second tower.
            mask: True where a token is no padding.
        """
        condition = self.text_pooler(pooled)
        crop = None
        if self.config.crop:
            numbers = torch.cat([torch.full((1,), number, device=text.device) for number in CROP])
            crop = self.crop_proj(self.crop_embed(numbers).to(self.crop_proj.weight.dtype)).unsqueeze(0)
        scale, shift = self.head_nm["ada_lin"](condition).unsqueeze(1).chunk(2, dim=-1)
        return Conditioning(
            start=condition.unsqueeze(1) + self.pos_start + self.lvl_embed.weight[0],
            mask=mask[:, None, None],
            blocks=tuple(block.constants(condition, crop, text) for block in self.blocks),
            head_gain=scale + 1,
            head_shift=shift,
        )

    def embed(self, next_map: Float[Tensor, "b cv h w"], k: int) -> Float[Tensor, "b l c"]:
        """Input of scale k: word_embed(map) + level.

        Args:
            next_map: latent map at the grid of scale k.
            k: scale, from 1.

        Raises:
            ShapeError: a map of another shape.
        """
        expected = (self.config.latent_channels, *self.config.grids[k])
        if tuple(next_map.shape[1:]) != expected:
            raise ShapeError(f"scale {k} takes maps of {expected}, given {tuple(next_map.shape[1:])}.")
        tokens = next_map.flatten(2).transpose(1, 2)
        return self.word_embed(tokens.to(self.word_embed.weight.dtype)) + self.lvl_embed.weight[k]

    def rotation(self, k: int) -> Rotation:
        """Rotary positions of the tokens of scale k."""
        config, weight = self.config, self.head.weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        return map_rotation(
            config.patch_nums[k],
            config.head_dim,
            theta=config.rope_theta,
            size=config.rope_size,
            dtype=wide,
            device=weight.device,
        )

    def forward_blocks(
        self, x: Float[Tensor, "rows l c"], conditioning: Conditioning, k: int, cache: KeyValueCache | None
    ) -> Float[Tensor, "rows l c"]:
        """All blocks on the tokens of scale k; then the cache moves on.

        Args:
            x: input of the step.
            conditioning: of the same rows.
            k: scale.
            cache: of the run; None where a scale sees itself alone.
        """
        rotation = self.rotation(k)
        for j, (block, constants) in enumerate(zip(self.blocks, conditioning.blocks, strict=True)):
            seen = attend if cache is None else _cached(cache, j)
            x = block(x, constants, conditioning.mask, rotation, seen)
        if cache is not None:
            cache.advance(x.shape[1])
        return x

    def forward_head(
        self, hidden: Float[Tensor, "rows l c"], conditioning: Conditioning, rows: slice | Int[Tensor, " n"]
    ) -> Float[Tensor, "n l v"]:
        """Logits: head(LN(hidden)(1 + scale) + shift), float32 or wider.

        Args:
            hidden: output of the last block.
            conditioning: of the same rows.
            rows: which rows to compute.
        """
        gain, shift = conditioning.head_gain[rows], conditioning.head_shift[rows]
        normed = F.layer_norm(hidden[rows], (self.config.width,), eps=self.config.eps)
        logits = self.head(torch.addcmul(shift, normed, gain))
        return logits if logits.dtype == torch.float64 else logits.float()


def _cached(cache: KeyValueCache, layer: int) -> Attend:
    def attention(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        return attend(queries, *cache.append(layer, keys, values), scale)

    return attention

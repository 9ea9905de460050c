"""The HART transformer: text context, scales, head and residual head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hguide.backends.attention import Attend, attend
from hguide.backends.cache import KeyValueCache
from hguide.backends.hart.block import Block, BlockConstants
from hguide.backends.hart.residual_head import ResidualHead
from hguide.backends.hart.rope import Rotation, map_coordinates, map_rotation, text_rotation
from hguide.backends.hart.timestep import TimestepEmbedding
from hguide.backends.hart.transformer_config import TransformerConfig
from hguide.backends.var.transformer import block_causal_mask
from hguide.errors import ShapeError

__all__ = ["Conditioning", "HARTTransformer"]


@dataclass(frozen=True, eq=False)
class Conditioning:
    """All that depends on text and weights only: computed once per run, read at every scale.

    Attributes:
        context: embedded text `(rows, t, C)`, without the level of its scale.
        positions: of the text tokens `(rows, t)`.
        blocks: constants of each block.
        head_gain: 1 + scale of the head's norm.
        head_shift: shift of the head's norm.
    """

    context: Float[Tensor, "rows t c"]
    positions: Int[Tensor, "rows t"]
    blocks: tuple[BlockConstants, ...]
    head_gain: Float[Tensor, "rows 1 c"]
    head_shift: Float[Tensor, "rows 1 c"]

    @property
    def rows(self) -> int:
        """Batch rows."""
        return self.context.shape[0]

    @property
    def offset(self) -> Int[Tensor, " rows"]:
        """What is added to both coordinates of a map: the position of the last text token."""
        return self.positions[:, -1]

    def keep(self, rows: int) -> Conditioning:
        """The first `rows` rows, as views.

        Raises:
            ShapeError: where fewer are there.
        """
        if not 0 <= rows <= self.rows:
            raise ShapeError(f"cannot keep {rows} rows: {self.rows} are there.")
        return replace(
            self,
            context=self.context[:rows],
            positions=self.positions[:rows],
            blocks=tuple(block.part(0, rows) for block in self.blocks),
            head_gain=self.head_gain[:rows],
            head_shift=self.head_shift[:rows],
        )


class HARTTransformer(nn.Module):
    """The HART transformer (arXiv 2410.10812); its parameters carry the names of the official checkpoints.

    The module holds weights only. `conditioning` is computed once per run; a step is `first_input` or `embed`, then
    `forward_blocks` with the cache of the run, then `forward_head`. `forward` is the masked pass for training.
    """

    def __init__(self, config: TransformerConfig) -> None:
        """Make the network with PyTorch's default weights.

        Args:
            config: its shape.
        """
        super().__init__()
        self.config = config
        width = config.width
        self.word_embed = nn.Linear(config.latent_channels, width)
        self.context_embed = nn.Linear(config.context_dim, width)
        if config.context_norm:
            self.context_norm = nn.RMSNorm(config.context_dim, eps=config.eps)
        table = config.level_embedding == "table"
        self.lvl_embed: nn.Module = nn.Embedding(len(config.patch_nums), width) if table else TimestepEmbedding(width)
        self.blocks = cast("Sequence[Block]", nn.ModuleList(Block(config) for _ in range(config.depth)))
        head_norm = {"ln_wo_grad": nn.RMSNorm(width, eps=config.eps)}
        self.head_nm = nn.ModuleDict({**head_norm, "ada_lin": nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))})
        self.head = nn.Linear(width, config.vocabulary)
        self.decoder_norm = nn.RMSNorm(width, eps=config.eps)
        residual = ResidualHead(config.latent_channels, width, config.residual_width, config.residual_depth)
        self.diffloss = nn.ModuleDict({"net": residual})

    @property
    def residual_head(self) -> ResidualHead:
        """The network of the continuous residual."""
        return cast("ResidualHead", self.diffloss["net"])

    def level(self, k: int) -> Float[Tensor, " c"]:
        """Embedding of the level k; all text tokens have level 0."""
        weight = self.word_embed.weight
        if self.config.level_embedding == "table":
            return cast("nn.Embedding", self.lvl_embed).weight[k]
        wide = torch.promote_types(weight.dtype, torch.float32)
        # Under autocast the layer gives a half type; the residual stream starts from here and is to keep its own.
        return self.lvl_embed(torch.full((1,), k, device=weight.device, dtype=wide))[0].to(weight.dtype)

    def conditioning(
        self,
        text: Float[Tensor, "rows t d"],
        mask: Bool[Tensor, "rows t"],
        positions: Int[Tensor, "rows t"],
    ) -> Conditioning:
        """What depends on the text only.

        Args:
            text: embeddings, padding included, which takes part as it is; zeros for the null condition.
            mask: True where a token is no padding; read by an average over the text only.
            positions: of the tokens; zeros for the null condition.
        """
        text = text.to(self.context_embed.weight.dtype)
        context = self.context_embed(self.context_norm(text) if self.config.context_norm else text)
        largest = context.amax(1)
        average = self.config.adaln == "table" or self.config.pooling == "avg"
        pooled = _masked_mean(context, mask) if average else largest
        scale, shift = self.head_nm["ada_lin"](largest).unsqueeze(1).chunk(2, dim=-1)
        return Conditioning(
            context=context,
            positions=positions,
            blocks=tuple(block.constants(pooled) for block in self.blocks),
            head_gain=scale + 1,
            head_shift=shift,
        )

    def first_input(self, conditioning: Conditioning) -> Float[Tensor, "rows t c"]:
        """Input of the first scale: the text; its last token predicts the scale."""
        return conditioning.context + self.level(0)

    def embed(self, tokens: Float[Tensor, "b l cv"], k: int) -> Float[Tensor, "b l c"]:
        """Input of scale k: word_embed(latents) + level.

        Args:
            tokens: latent vectors at the scale's grid, or at some places of it.
            k: scale, from 1.
        """
        return self.word_embed(tokens.to(self.word_embed.weight.dtype)) + self.level(k)

    def rotation(self, conditioning: Conditioning, k: int, positions: Int[Tensor, "b n"] | None = None) -> Rotation:
        """Rotary positions of the tokens of scale k.

        Args:
            conditioning: of the run.
            k: scale.
            positions: flat places of a partial map; None for the whole map.
        """
        config, dtype = self.config, self.word_embed.weight.dtype
        if k == 0:
            return text_rotation(conditioning.positions, config.head_dim, dtype)
        coordinates = map_coordinates(config.grids[k], config.patch_nums[-1], conditioning.positions.device)
        places = coordinates[None] if positions is None else coordinates[positions]
        return map_rotation(places, conditioning.offset, config.head_dim, dtype)

    def forward_blocks(
        self,
        x: Float[Tensor, "rows l c"],
        conditioning: Conditioning,
        rotation: Rotation,
        cache: KeyValueCache,
    ) -> Float[Tensor, "rows l c"]:
        """All blocks on the new tokens, which see each other and all of the cache; then the cache moves on.

        No token is masked: text padding is seen like any other token, and text tokens see those behind them.

        Args:
            x: input of the step.
            conditioning: of the same rows.
            rotation: of the tokens.
            cache: of the run, one layer per block.

        Returns:
            Output of the last block, `(rows, l, C)`.

        Raises:
            ShapeError: where rows or tokens do not fit the cache.
        """
        if not x.shape[0] == conditioning.rows == cache.rows or cache.layers != self.config.depth:
            raise ShapeError(
                f"{x.shape[0]} rows of tokens, {conditioning.rows} of text, {cache.rows} of cache must be equal, "
                f"and the cache's {cache.layers} layers the {self.config.depth} blocks."
            )
        for j, (block, constants) in enumerate(zip(self.blocks, conditioning.blocks, strict=True)):
            x = block(x, constants, rotation, _cached(cache, j))
        cache.advance(x.shape[1])
        return x

    def forward_head(
        self,
        hidden: Float[Tensor, "rows l c"],
        conditioning: Conditioning,
        rows: slice | Int[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n l v"]:
        """Logits: head(norm(hidden) (1 + scale) + shift), computed in the type of the head's weights.

        Args:
            hidden: output of the last block.
            conditioning: of the same rows.
            rows: which rows to compute; all by default.

        Returns:
            `(n, l, V)` float32 (float64 where the head's weights are).
        """
        gain, shift = conditioning.head_gain, conditioning.head_shift
        if rows is not None:
            hidden, gain, shift = hidden[rows], gain[rows], shift[rows]
        logits = self.head(torch.addcmul(shift, self.head_nm["ln_wo_grad"](hidden), gain))
        return logits if logits.dtype == torch.float64 else logits.float()

    def residual_condition(
        self, hidden: Float[Tensor, "rows l c"], codes: Float[Tensor, "rows l cv"]
    ) -> Float[Tensor, "rows l c"]:
        """z = norm(hidden + word_embed(codes)): what the residual head is told of tokens and their drawn codes."""
        return self.decoder_norm(hidden + self.word_embed(codes.to(self.word_embed.weight.dtype)))

    def forward(
        self, conditioning: Conditioning, var_input: Float[Tensor, "b m cv"]
    ) -> tuple[Float[Tensor, "b l v"], Float[Tensor, "b l c"]]:
        """Logits and outputs of all scales at once, each seeing itself and what is before (teacher forcing).

        Args:
            conditioning: of the text of each sample; dropping texts is up to the trainer.
            var_input: latents of scales 1..K-1 in sequence.

        Returns:
            Logits `(b, L, V)` float32 and last block's outputs `(b, L, C)`, L the tokens of all scales, the first one's
            predicted by the last text token.

        Raises:
            ShapeError: where `var_input` has another shape.
        """
        lengths, config = self.config.lengths, self.config
        expected = (conditioning.rows, sum(lengths[1:]), config.latent_channels)
        if tuple(var_input.shape) != expected:
            raise ShapeError(f"var_input must be (b, tokens, Cv) = {expected}, given {tuple(var_input.shape)}.")
        scales = range(1, len(lengths))
        parts = zip(var_input.split(lengths[1:], dim=1), scales, strict=True)
        x = torch.cat([self.first_input(conditioning), *(self.embed(part, k) for part, k in parts)], dim=1)
        turns = [self.rotation(conditioning, k) for k in range(len(lengths))]
        rotation = Rotation(torch.cat([t.cos for t in turns], dim=2), torch.cat([t.sin for t in turns], dim=2))
        masked = partial(attend, mask=block_causal_mask(lengths, x.device))
        for block, constants in zip(self.blocks, conditioning.blocks, strict=True):
            x = block(x, constants, rotation, masked)
        hidden = x[:, config.context_tokens - 1 :]
        return self.forward_head(hidden, conditioning), hidden


def _masked_mean(x: Float[Tensor, "rows t c"], mask: Bool[Tensor, "rows t"]) -> Float[Tensor, "rows c"]:
    weights = mask.to(x.dtype)[:, :, None]
    return (x * weights).sum(1) / weights.sum(1).clamp_min(1.0)


def _cached(cache: KeyValueCache, layer: int) -> Attend:
    def attention(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        return attend(queries, *cache.append(layer, keys, values), scale)

    return attention

"""The Infinity transformer: bitwise next-scale prediction from text (arXiv 2412.04431)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hguide.backends.attention import attend
from hguide.backends.cache import KeyValueCache
from hguide.backends.infinity.attention import Attend, Block, BlockModulation
from hguide.backends.infinity.rope import rope_table, rotate
from hguide.backends.infinity.scale_schedule import ScaleSchedule
from hguide.backends.infinity.text_pooling import PaddedText, TextPooling, pad
from hguide.backends.infinity.transformer_config import TransformerConfig
from hguide.backends.var.transformer import LayerAttend, block_causal_mask, scale_of_token
from hguide.errors import ShapeError

__all__ = ["InfinityTransformer", "Modulation", "OnBlock"]

OnBlock = Callable[[int, Tensor, Tensor], Tensor]
"""`(block, its input, its output) -> what goes on`, each `(rows, l, C)`."""


@dataclass(frozen=True)
class Modulation:
    """All that depends on text and weights only: computed once per run, read at every scale.

    Attributes:
        start: input of the first scale.
        blocks: constants of each block.
        head_gain: 1 + scale of the head's norm.
        head_shift: shift of the head's norm.
    """

    start: Float[Tensor, "rows 1 c"]
    blocks: tuple[BlockModulation, ...]
    head_gain: Float[Tensor, "rows 1 c"]
    head_shift: Float[Tensor, "rows 1 c"]

    @property
    def rows(self) -> int:
        """Batch rows."""
        return self.start.shape[0]

    def keep(self, rows: int) -> Modulation:
        """The first `rows` rows, as views.

        Raises:
            ShapeError: where fewer are there.
        """
        if not 0 <= rows <= self.rows:
            raise ShapeError(f"cannot keep {rows} rows: {self.rows} are there.")
        return self.part(0, rows)

    def part(self, first: int, stop: int) -> Modulation:
        """The rows from `first` to before `stop`, as views."""
        rows = slice(first, stop)
        return replace(
            self,
            start=self.start[rows],
            blocks=tuple(block.part(first, stop) for block in self.blocks),
            head_gain=self.head_gain[rows],
            head_shift=self.head_shift[rows],
        )


class InfinityTransformer(nn.Module):
    """Text and the scales so far to two logits per bit of the next scale.

    The module holds weights only; the parameters of a block carry their official names. `modulation` is computed once
    per run; a step is its `start` or `embed`, then `forward_blocks` with the cache of the run, then `forward_head`.
    `forward` is the masked pass for training.
    """

    def __init__(self, config: TransformerConfig) -> None:
        """Make the network with PyTorch's default weights; see `initialise` for training from scratch.

        Args:
            config: its shape.
        """
        super().__init__()
        self.config = config
        width, texts = config.width, config.text_channels
        self.cfg_uncond = nn.Parameter(torch.zeros(config.text_length, texts))
        self.text_norm = nn.RMSNorm(texts, eps=config.eps)
        self.text_proj_for_sos = nn.ModuleDict({"ca": TextPooling(texts, width, config.pool_heads)})
        self.text_proj_for_ca = nn.Sequential(
            nn.Linear(texts, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
        )
        self.pos_start = nn.Parameter(torch.zeros(1, 1, width))
        self.lvl_embed = nn.Embedding(config.levels, width)
        self.word_embed = nn.Linear(config.token_bits, width)
        self.shared_ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        blocks = nn.ModuleList(Block(width, config.heads, config.mlp_width, config.eps) for _ in range(config.depth))
        self.blocks = cast("Sequence[Block]", blocks)
        self.head_nm = nn.ModuleDict({"ada_lin": nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))})
        self.head = nn.Linear(width, 2 * config.token_bits)

    @property
    def compute_dtype(self) -> torch.dtype:
        """Type of the blocks' products, and of the cache."""
        return self.blocks[0].sa.mat_qkv.weight.dtype

    def cast_blocks(self, dtype: torch.dtype) -> InfinityTransformer:
        """Cast the blocks, where nearly all weights are; text, embeddings, norms' condition and head stay float32.

        So do the official models: half precision in the products, float32 in norms, positions, residual and logits.

        Args:
            dtype: of the blocks' weights; float64 casts the rest too.

        Returns:
            The same network.
        """
        if dtype == torch.float64:
            return self.to(dtype)
        for block in self.blocks:
            block.to(dtype)
        return self

    def null_text(self, length: int) -> Float[Tensor, "n ct"]:
        """The unconditional text that stands for a prompt of `length` tokens: the first rows of a learnt table.

        Raises:
            ShapeError: the table has fewer.
        """
        if length > self.config.text_length:
            raise ShapeError(f"a text has up to {self.config.text_length} tokens, got {length}.")
        return self.cfg_uncond[:length]

    def text_memory(self, texts: PaddedText) -> PaddedText:
        """Texts of all rows, after the norm."""
        return replace(texts, features=self.text_norm(texts.features.to(self.text_norm.weight.dtype)))

    def modulation(self, texts: PaddedText, cross_attention_dtype: torch.dtype | None = None) -> Modulation:
        """What depends on the texts only.

        Args:
            texts: features of each row.
            cross_attention_dtype: that attention to texts rounds to; the official program rounds to bfloat16 there
                even where all else is float32. By default nothing is rounded.

        Returns:
            The constants of a run with these rows.
        """
        normed = self.text_memory(texts)
        condition = self.text_proj_for_sos["ca"](normed, cross_attention_dtype)
        memory = replace(normed, features=self.text_proj_for_ca(normed.features))
        shared = self.shared_ada_lin(condition)
        head_scale, head_shift = self.head_nm["ada_lin"](condition).unsqueeze(1).chunk(2, dim=-1)
        return Modulation(
            start=condition.unsqueeze(1) + self.pos_start,
            blocks=tuple(block.modulation(shared, memory, cross_attention_dtype) for block in self.blocks),
            head_gain=head_scale + 1,
            head_shift=head_shift,
        )

    def embed(self, bits: Float[Tensor, "b l bits"]) -> Float[Tensor, "b l c"]:
        """Input of a scale from 1 on: word_embed of the resized sum of codes, before the level embedding."""
        return self.word_embed(bits.to(self.word_embed.weight.dtype))

    def rope(self, schedule: ScaleSchedule) -> Float[Tensor, "two l half"]:
        """The rotation of all tokens of a run."""
        config = self.config
        return rope_table(schedule.grids, schedule.reference, config.head_dim, config.rope_mode, self.pos_start.device)

    def forward_blocks(
        self,
        x: Float[Tensor, "rows l c"],
        level: Int[Tensor, " l"],
        rope: Float[Tensor, "two *rows l half"],
        modulation: Modulation,
        cache: KeyValueCache,
        on_block: OnBlock | None = None,
        layer_attend: LayerAttend | None = None,
    ) -> Float[Tensor, "rows l c"]:
        """All blocks on the new tokens, which see each other and all of the cache; then the cache moves on.

        Args:
            x: input of the step, without level embedding.
            level: scale of each new token.
            rope: rotation of the new tokens; `(2, rows, 1, l, half)` where it differs between rows.
            modulation: of the same rows.
            cache: of the run, one layer per block.
            on_block: sees each block's input and output and decides what goes on.
            layer_attend: takes the place of softmax attention (perturbed streams).

        Returns:
            Output of the last block.

        Raises:
            ShapeError: where rows or tokens do not fit the cache.
        """
        if not x.shape[0] == modulation.rows == cache.rows or cache.layers != self.config.depth:
            raise ShapeError(
                f"{x.shape[0]} rows of tokens, {modulation.rows} of modulation, {cache.rows} of cache must be equal, "
                f"and the cache's {cache.layers} layers the {self.config.depth} blocks."
            )
        x = self._run(x, level, modulation, lambda j: _cached(cache, j, rope, layer_attend), on_block)
        cache.advance(x.shape[1])
        return x

    def forward_head(
        self,
        hidden: Float[Tensor, "rows l c"],
        modulation: Modulation,
        rows: slice | Int[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n l two_bits"]:
        """Two logits per bit: head(LN(hidden) (1 + scale) + shift); channel 2i is bit i = 0, 2i + 1 is bit i = 1.

        Args:
            hidden: output of the last block.
            modulation: of the same rows.
            rows: which rows to compute; all by default.

        Returns:
            `(n, l, 2 bits)` in the type of the head, float32 or wider.
        """
        gain, shift = modulation.head_gain, modulation.head_shift
        if rows is not None:
            hidden, gain, shift = hidden[rows], gain[rows], shift[rows]
        normed = torch.addcmul(shift, F.layer_norm(hidden, (self.config.width,), eps=self.config.eps), gain)
        return self.head(normed)

    def forward(
        self,
        texts: Sequence[Float[Tensor, "_ ct"]],
        inputs: Float[Tensor, "b m bits"],
        schedule: ScaleSchedule,
    ) -> Float[Tensor, "b l two_bits"]:
        """Logits of all scales at once, each seeing itself and the scales before (teacher forcing).

        Args:
            texts: `(tokens, Ct)` features of each sample; replacing them by `null_text` is up to the trainer.
            inputs: inputs of scales 1..K-1 in sequence (`training_inputs`).
            schedule: the grids.

        Raises:
            ShapeError: where `inputs` has another shape.
        """
        lengths = schedule.lengths
        expected = (len(texts), sum(lengths) - lengths[0], self.config.token_bits)
        if tuple(inputs.shape) != expected:
            raise ShapeError(f"inputs must be (b, L - l0, bits) = {expected}, given {tuple(inputs.shape)}.")
        modulation = self.modulation(pad(texts))
        x = torch.cat([modulation.start.expand(-1, lengths[0], -1), self.embed(inputs)], dim=1)
        mask, rope = block_causal_mask(lengths, x.device), self.rope(schedule)

        def masked(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            return attend(rotate(queries, rope), rotate(keys, rope).to(values.dtype), values, 1.0, mask)

        x = self._run(x, scale_of_token(lengths, x.device), modulation, lambda j: masked)
        return self.forward_head(x, modulation)

    def _run(
        self,
        x: Tensor,
        level: Tensor,
        modulation: Modulation,
        attends: Callable[[int], Attend],
        on_block: OnBlock | None = None,
    ) -> Tensor:
        """The blocks in turn, with the level embedding before the first of all, or of each chunk."""
        starts = self.config.chunk_starts if self.config.level_every_chunk else (0,)
        for j, (block, constants) in enumerate(zip(self.blocks, modulation.blocks, strict=True)):
            if j in starts:
                x = x + self.lvl_embed(level)
            new = block(x, constants, attends(j))
            x = new if on_block is None else on_block(j, x, new)
        return x


def _cached(cache: KeyValueCache, layer: int, rope: Tensor, layer_attend: LayerAttend | None) -> Attend:
    def attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        keys, values = cache.append(layer, rotate(keys, rope), values)
        turned = rotate(queries, rope)
        if layer_attend is not None:
            return layer_attend(layer, turned, keys, values, 1.0)
        return attend(turned, keys, values, 1.0)

    return attention

"""The VAR transformer: next-scale prediction with the official parameter names (arXiv 2404.02905)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from hguide.backends.attention import Attend, Block, BlockModulation, attend
from hguide.backends.cache import KeyValueCache
from hguide.backends.var.transformer_config import TransformerConfig
from hguide.errors import ShapeError

__all__ = ["Modulation", "OnBlock", "TransformerConfig", "VARTransformer", "block_causal_mask", "scale_of_token"]

OnBlock = Callable[[int, Tensor, Tensor], Tensor]
"""`(block, its input, its output) -> what goes on`, each `(rows, l, C)`: to look, or to skip a block for some rows."""

LayerAttend = Callable[[int, Tensor, Tensor, Tensor, float], Tensor]
"""`(block, queries, keys, values, scale) -> output`, over past and new tokens: in place of softmax attention."""


@dataclass(frozen=True)
class Modulation:
    """All that depends on condition and weights only: computed once per run, read at every scale.

    Attributes:
        start: input of the first scale.
        blocks: constants of each block.
        head_gain: 1 + scale of the head's norm.
        head_shift: shift of the head's norm.
    """

    start: Float[Tensor, "rows l c"]
    blocks: tuple[BlockModulation, ...]
    head_gain: Float[Tensor, "rows 1 c"]
    head_shift: Float[Tensor, "rows 1 c"]

    @property
    def rows(self) -> int:
        """Batch rows."""
        return self.head_gain.shape[0]

    def keep(self, rows: int) -> Modulation:
        """The first `rows` rows, as views.

        Args:
            rows: rows that stay.

        Returns:
            The constants of these rows.

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


class VARTransformer(nn.Module):
    """The VAR transformer (arXiv 2404.02905); its parameters carry the names of the official checkpoints.

    The module holds weights only. `modulation` is computed once per run; a step is `first_input` or `embed`, then
    `forward_blocks` with the cache of the run, then `forward_head`. `forward` is the masked pass for training.
    """

    def __init__(self, config: TransformerConfig) -> None:
        """Make the network with PyTorch's default weights; see `initialise` for training from scratch.

        Args:
            config: its shape.
        """
        super().__init__()
        self.config = config
        width = config.width
        self.pos_start = nn.Parameter(torch.zeros(1, config.lengths[0], width))
        self.pos_1LC = nn.Parameter(torch.zeros(1, config.length, width))
        self.word_embed = nn.Linear(config.latent_channels, width)
        self.class_emb = nn.Embedding(config.classes + 1, width)
        self.lvl_embed = nn.Embedding(len(config.patch_nums), width)
        if config.shared_adaln:
            self.shared_ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        make = partial(Block, l2_norm=config.l2_norm, shared_adaln=config.shared_adaln, eps=config.eps)
        blocks = nn.ModuleList(make(width, config.heads, config.hidden) for _ in range(config.depth))
        self.blocks = cast("Sequence[Block]", blocks)
        self.head_nm = nn.ModuleDict({"ada_lin": nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))})
        self.head = nn.Linear(width, config.vocabulary)

    def modulation(self, labels: Int[Tensor, " rows"]) -> Modulation:
        """What depends on the condition only.

        Args:
            labels: class of each row; `config.null_label` for none.

        Returns:
            The constants of a run with these rows.
        """
        condition = self.class_emb(labels)
        shared = self.shared_ada_lin(condition) if self.config.shared_adaln else None
        head_scale, head_shift = self.head_nm["ada_lin"](condition).unsqueeze(1).chunk(2, dim=-1)
        return Modulation(
            start=condition.unsqueeze(1) + self.pos_start + self._positions(0),
            blocks=tuple(block.modulation(condition, shared) for block in self.blocks),
            head_gain=head_scale + 1,
            head_shift=head_shift,
        )

    def first_input(self, modulation: Modulation) -> Float[Tensor, "rows l c"]:
        """Input of the first scale: class embedding and positions.

        Args:
            modulation: of the run.

        Returns:
            `(rows, l0, C)`.
        """
        return modulation.start

    def embed(self, next_map: Float[Tensor, "b ..."], k: int) -> Float[Tensor, "b l c"]:
        """Input of scale k: word_embed(map) + positions.

        Args:
            next_map: latent map at the grid of scale k, `(b, Cv, h, w)` or `(b, l, Cv)`.
            k: scale, from 1.

        Returns:
            `(b, l, C)`.

        Raises:
            ShapeError: where the map has another shape.
        """
        tokens = next_map.flatten(2).transpose(1, 2) if next_map.ndim == 4 else next_map
        expected = (self.config.lengths[k], self.config.latent_channels)
        if tuple(tokens.shape[1:]) != expected:
            raise ShapeError(
                f"scale {k} takes (tokens, channels) = {expected}, given a map of {tuple(next_map.shape)}."
            )
        return self.word_embed(tokens.to(self.word_embed.weight.dtype)) + self._positions(k)

    def forward_blocks(
        self,
        x: Float[Tensor, "rows l c"],
        modulation: Modulation,
        cache: KeyValueCache,
        *,
        on_block: OnBlock | None = None,
        layer_attend: LayerAttend | None = None,
    ) -> Float[Tensor, "rows l c"]:
        """All blocks on the new tokens, which see each other and all of the cache; then the cache moves on.

        Args:
            x: input of the step.
            modulation: of the same rows.
            cache: of the run, one layer per block.
            on_block: sees each block's input and output and decides what goes on.
            layer_attend: takes the place of softmax attention (perturbed streams).

        Returns:
            Output of the last block, `(rows, l, C)`.

        Raises:
            ShapeError: where rows or tokens do not fit the cache.
        """
        if not x.shape[0] == modulation.rows == cache.rows or cache.layers != self.config.depth:
            raise ShapeError(
                f"{x.shape[0]} rows of tokens, {modulation.rows} of modulation, {cache.rows} of cache must be equal, "
                f"and the cache's {cache.layers} layers the {self.config.depth} blocks."
            )
        for j, (block, constants) in enumerate(zip(self.blocks, modulation.blocks, strict=True)):
            new = block(x, constants, _cached(cache, j, layer_attend))
            x = new if on_block is None else on_block(j, x, new)
        cache.advance(x.shape[1])
        return x

    def forward_head(
        self,
        hidden: Float[Tensor, "rows l c"],
        modulation: Modulation,
        rows: slice | Int[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n l v"]:
        """Logits: head(LN(hidden) (1 + scale) + shift), computed in the type of the head's weights.

        Args:
            hidden: output of the last block.
            modulation: of the same rows.
            rows: which rows to compute; all by default.

        Returns:
            `(n, l, V)` float32 (float64 where the head's weights are).
        """
        gain, shift = modulation.head_gain, modulation.head_shift
        if rows is not None:
            hidden, gain, shift = hidden[rows], gain[rows], shift[rows]
        normed = torch.addcmul(shift, F.layer_norm(hidden, (self.config.width,), eps=self.config.eps), gain)
        logits = self.head(normed.to(self.head.weight.dtype))
        return logits if logits.dtype == torch.float64 else logits.float()

    def forward(
        self,
        labels: Int[Tensor, " b"],
        var_input: Float[Tensor, "b m cv"],
    ) -> Float[Tensor, "b l v"]:
        """Logits of all scales at once, each seeing itself and the scales before (teacher forcing).

        Position j predicts the token at position j. Labels are taken as given: dropping them is up to the trainer.

        Args:
            labels: class of each sample.
            var_input: latent maps of scales 1..K-1 in sequence, `(b, L - l0, Cv)`.

        Returns:
            `(b, L, V)` float32.

        Raises:
            ShapeError: where `var_input` has another shape.
        """
        first = self.config.lengths[0]
        expected = (labels.shape[0], self.config.length - first, self.config.latent_channels)
        if tuple(var_input.shape) != expected:
            raise ShapeError(f"var_input must be (b, L - l0, Cv) = {expected}, given {tuple(var_input.shape)}.")
        modulation = self.modulation(labels)
        positions = self.pos_1LC + self.lvl_embed(scale_of_token(self.config.lengths, var_input.device))
        words = self.word_embed(var_input.to(self.word_embed.weight.dtype))
        x = torch.cat([modulation.start, words + positions[:, first:]], dim=1)
        masked = partial(attend, mask=block_causal_mask(self.config.lengths, x.device))
        for block, constants in zip(self.blocks, modulation.blocks, strict=True):
            x = block(x, constants, masked)
        return self.forward_head(x, modulation)

    def _positions(self, k: int) -> Float[Tensor, "1 l c"]:
        start = self.config.starts[k]
        return self.pos_1LC[:, start : start + self.config.lengths[k]] + self.lvl_embed.weight[k]


def scale_of_token(lengths: tuple[int, ...], device: torch.device | str | None = None) -> Int[Tensor, " l"]:
    """Index of the scale that each token of the sequence belongs to.

    Args:
        lengths: tokens of each scale.
        device: where the result lives.

    Returns:
        `(L,)`, from 0.
    """
    ends = torch.tensor(lengths, device=device).cumsum(0)
    return torch.bucketize(torch.arange(sum(lengths), device=device), ends, right=True)


def block_causal_mask(lengths: tuple[int, ...], device: torch.device | str | None = None) -> Bool[Tensor, "l l"]:
    """True where a token may see another: one of its own scale or of a scale before.

    Args:
        lengths: tokens of each scale.
        device: where the mask lives.

    Returns:
        `(L, L)`, query by key.
    """
    scale = scale_of_token(lengths, device)
    return scale[:, None] >= scale[None, :]


def _cached(cache: KeyValueCache, layer: int, layer_attend: LayerAttend | None) -> Attend:
    def attention(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        keys, values = cache.append(layer, keys, values)
        if layer_attend is None:
            return attend(queries, keys, values, scale)
        return layer_attend(layer, queries, keys, values, scale)

    return attention

"""The multi-scale residual quantizer of VAR (arXiv 2404.02905, algorithms 1 and 2), also the base of HART's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hguide.errors import ConfigError, ShapeError
from hguide.grids import Grid

__all__ = ["MultiScaleQuantizer", "phi_index"]

TRAINING_STATISTIC = "ema_vocab_hit_SV"


@cache
def phi_index(count: int, convolutions: int = 4) -> tuple[int, ...]:
    """Which of the shared convolutions refines each scale.

    Scale k of K uses argmin_j |tick_j - k / (K - 1)|, ticks evenly spaced in [1/3n, 1 - 1/3n] for n = 4 convolutions
    and in [1/2n, 1 - 1/2n] for other n. Exact ties occur (K = 5, 10) and are decided by the rounding of float64, as in
    the published checkpoints.

    Args:
        count: number of scales K.
        convolutions: number of shared convolutions n.

    Returns:
        K indices.

    Raises:
        ConfigError: a number is not positive.
    """
    if count < 1 or convolutions < 1:
        raise ConfigError(f"count and convolutions must be positive, got {count} and {convolutions}.")
    # The order of the divisions decides the ties: 1 / 3 / n is not always 1 / (3 n).
    margin = 1 / (3 if convolutions == 4 else 2) / convolutions
    ticks = np.linspace(margin, 1 - margin, convolutions)
    return tuple(int(np.argmin(np.abs(ticks - index / max(count - 1, 1)))) for index in range(count))


class SharedConvolutions(nn.Module):
    """The few 3x3 convolutions that all scales share."""

    def __init__(self, channels: int, convolutions: int) -> None:
        """Make the convolutions.

        Args:
            channels: latent channels.
            convolutions: how many.
        """
        super().__init__()
        self.qresi_ls = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(convolutions))


class MultiScaleQuantizer(nn.Module):
    """Latent maps to token maps of growing size and back.

    f_hat_k = f_hat_{k-1} + phi_k(up(codebook[tokens_k])), phi(h) = (1 - r) h + r conv(h); the tokens of scale k are the
    codes nearest to the area-reduced residual f - f_hat_{k-1}. Every method is a pure function of its arguments and the
    weights, works out of place and lets gradients through, the choice of the nearest code excepted.
    """

    def __init__(
        self, vocabulary: int, latent_channels: int, convolutions: int = 4, residual_ratio: float = 0.5
    ) -> None:
        """Make the quantizer.

        Args:
            vocabulary: number of codes.
            latent_channels: length of a code.
            convolutions: number of shared convolutions.
            residual_ratio: weight r of the convolution in phi.
        """
        super().__init__()
        self.residual_ratio = residual_ratio
        self.embedding = nn.Embedding(vocabulary, latent_channels)
        self.quant_resi = SharedConvolutions(latent_channels, convolutions)
        self.register_load_state_dict_pre_hook(_drop_training_statistic)

    @property
    def vocabulary(self) -> int:
        """Number of codes."""
        return self.embedding.num_embeddings

    @property
    def latent_channels(self) -> int:
        """Length of a code."""
        return self.embedding.embedding_dim

    def lookup(self, tokens: Int[Tensor, "b h w"]) -> Float[Tensor, "b c h w"]:
        """The codes of a token map.

        Args:
            tokens: indices into the codebook.

        Returns:
            `codebook[tokens]`, channels first.
        """
        return self.embedding(tokens).permute(0, 3, 1, 2)

    def contribution(self, h: Float[Tensor, "b c h w"], index: int, count: int, grid: Grid) -> Float[Tensor, "b c H W"]:
        """What one scale adds to the latent map: phi_k(up(h)).

        Args:
            h: the codes of scale `index`, or any mix of codes.
            index: scale k, from 0.
            count: number of scales K of the schedule.
            grid: the latent grid (H, W).

        Returns:
            the increment; `h` is enlarged by bicubic interpolation where it is smaller than the grid.
        """
        if h.shape[-2:] != grid:
            h = F.interpolate(h, size=grid, mode="bicubic", align_corners=False)
        convolution = self.quant_resi.qresi_ls[phi_index(count, len(self.quant_resi.qresi_ls))[index]]
        return (1 - self.residual_ratio) * h + self.residual_ratio * convolution(h)

    @staticmethod
    def next_map(f_hat: Float[Tensor, "b c H W"], grid: Grid) -> Float[Tensor, "b c h w"]:
        """The latent map reduced to a grid by area averages: what the transformer reads at the next scale.

        Args:
            f_hat: the accumulated latent map.
            grid: (h, w) of the next scale.

        Returns:
            the reduced map; `f_hat` itself where the grids are equal.
        """
        return f_hat if f_hat.shape[-2:] == grid else F.interpolate(f_hat, size=grid, mode="area")

    @torch.no_grad()
    def nearest(self, z: Float[Tensor, "b c h w"]) -> Int[Tensor, "b h w"]:
        """The nearest codes in Euclidean distance: argmax of z.e - |e|^2 / 2, in float32 or better.

        Args:
            z: latent vectors.

        Returns:
            int64 tokens.
        """
        dtype = torch.promote_types(torch.promote_types(z.dtype, self.embedding.weight.dtype), torch.float32)
        codebook = self.embedding.weight.to(dtype)
        vectors = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]).to(dtype)
        with torch.autocast(z.device.type, enabled=False):
            scores = torch.addmm(codebook.square().sum(dim=1), vectors, codebook.t(), beta=-0.5)
        return scores.argmax(dim=1).view(z.shape[0], *z.shape[2:])

    def encode(self, f: Float[Tensor, "b c H W"], grids: Sequence[Grid]) -> list[Int[Tensor, "b _ _"]]:
        """Tokens of a latent map at each scale (arXiv 2404.02905, algorithm 1).

        Args:
            f: the latent map.
            grids: (h, w) of each scale; the last is that of `f`.

        Returns:
            int64 token maps, one per scale.

        Raises:
            ShapeError: the last grid is not that of `f`.
        """
        with torch.no_grad():
            return self.encode_with_latents(f, grids)[0]

    def encode_with_latents(
        self, f: Float[Tensor, "b c H W"], grids: Sequence[Grid]
    ) -> tuple[list[Int[Tensor, "b _ _"]], list[Float[Tensor, "b c H W"]]]:
        """`encode` that also returns the latent map accumulated up to each scale.

        Args:
            f: the latent map; no gradient flows back to it (a straight-through estimate is the trainer's affair).
            grids: (h, w) of each scale; the last is that of `f`.

        Returns:
            token maps and accumulated latent maps, one per scale; gradients of the latter reach the codebook and phi.

        Raises:
            ShapeError: the last grid is not that of `f`.
        """
        grid = _last_grid(grids)
        if tuple(f.shape[-2:]) != grid:
            raise ShapeError(
                f"The last grid of a schedule is the latent's: asked for {grid}, the latent map has "
                f"{tuple(f.shape[-2:])}; pass a schedule that ends there, or images of another size."
            )
        residual = f.detach()
        f_hat: Tensor | None = None
        tokens, latents = [], []
        for index, (height, width) in enumerate(grids):
            tokens.append(self.nearest(self.next_map(residual, (height, width))))
            step = self.contribution(self.lookup(tokens[-1]), index, len(grids), grid)
            f_hat = step if f_hat is None else f_hat + step
            latents.append(f_hat)
            residual = residual - step.detach()
        return tokens, latents

    def accumulate(self, tokens: Sequence[Int[Tensor, "b _ _"]], grids: Sequence[Grid]) -> Float[Tensor, "b c H W"]:
        """The latent map of token maps (arXiv 2404.02905, algorithm 2).

        Args:
            tokens: token maps of the first scales of the schedule, at least one.
            grids: (h, w) of every scale of the schedule.

        Returns:
            f_hat on the last grid.

        Raises:
            ShapeError: the token maps are not those of the schedule.
        """
        return self.accumulate_prefixes(tokens, grids)[-1]

    def accumulate_prefixes(
        self, tokens: Sequence[Int[Tensor, "b _ _"]], grids: Sequence[Grid]
    ) -> list[Float[Tensor, "b c H W"]]:
        """`accumulate` after each of the given scales.

        Args:
            tokens: token maps of the first scales of the schedule, at least one.
            grids: (h, w) of every scale of the schedule.

        Returns:
            f_hat on the last grid, one per token map.

        Raises:
            ShapeError: the token maps are not those of the schedule.
        """
        grid = _last_grid(grids)
        given = [tuple(each.shape[-2:]) for each in tokens]
        if not given or given != [tuple(each) for each in grids[: len(given)]]:
            raise ShapeError(f"Token maps must lie on the schedule's first grids {list(grids)}, got {given}.")
        latents: list[Tensor] = []
        for index, each in enumerate(tokens):
            step = self.contribution(self.lookup(each), index, len(grids), grid)
            latents.append(latents[-1] + step if latents else step)
        return latents

    def var_input(
        self, tokens: Sequence[Int[Tensor, "b _ _"]], grids: Sequence[Grid]
    ) -> Float[Tensor, "b positions c"]:
        """What the transformer reads at scales 1..K-1 when the tokens are given (teacher forcing).

        Args:
            tokens: token maps of all scales; the last one is not needed.
            grids: (h, w) of every scale of the schedule.

        Returns:
            the reduced latent maps, flattened and joined: L - l_0 positions.

        Raises:
            ShapeError: the token maps are not those of the schedule, or it has one scale only.
        """
        if len(grids) < 2:
            raise ShapeError(f"A schedule of one scale has no later input, got {list(grids)}.")
        latents = self.accumulate_prefixes(tokens[: len(grids) - 1], grids)
        maps = [self.next_map(f_hat, following) for f_hat, following in zip(latents, grids[1:], strict=True)]
        return torch.cat([each.flatten(2) for each in maps], dim=2).transpose(1, 2)


def _last_grid(grids: Sequence[Grid]) -> Grid:
    if not grids:
        raise ShapeError("A schedule needs at least one grid, got none.")
    height, width = grids[-1]
    return height, width


def _drop_training_statistic(
    module: nn.Module, state: dict[str, Any], prefix: str, metadata: Mapping[str, Any], *rest: Any
) -> None:
    """Published files carry a usage count per code that only training reads; its rows differ with the schedule."""
    state.pop(prefix + TRAINING_STATISTIC, None)

"""How guidance is spread over the tokens of a step, and how that changes between steps: IGG's two diagnostics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hguide.errors import ConfigError, ShapeError
from hguide.grids import Grid

__all__ = ["dispersion", "divergence", "evenness", "mean_over_steps", "peak_distribution", "peaks", "regrid"]


def peaks(signal: Float[Tensor, "b h w v"]) -> Float64[Tensor, "b h w"]:
    """m_i = max_v n_iv: the largest entry of the guidance signal at each token.

    Args:
        signal: n, the contrast of given and null logits (or any guided map less its input), channel last. It is read
            as it is: a constant added to a token's logits moves its peak, so fix the gauge of both before the
            difference (`hguide.guidance.gauge.fix_gauge`).

    Source: arXiv 2509.23876; *stated* as the heat-map value of the authors' code.
    """
    return signal.detach().to(torch.float64).amax(-1)


def peak_distribution(signal: Float[Tensor, "b h w v"]) -> Float64[Tensor, "b h w"]:
    """p_i = max(m_i, 0) / sum_j max(m_j, 0): where on the map the guidance acts.

    Args:
        signal: as in `peaks`.

    Returns:
        One distribution over the tokens per sample; NaN for a sample without a positive peak.

    Source: arXiv 2509.23876, *reconstructed*.
    """
    return _normalised(peaks(signal).clamp_min(0.0))


def evenness(signal: Float[Tensor, "b h w v"]) -> Float64[Tensor, " b"]:
    """Pielou's evenness E = -sum_i p_i ln p_i / ln L of the peak distribution over the L tokens of a step.

    1 where all tokens have the same peak, 0 where one token has all. Unchanged by a positive factor on the signal and
    by any order of tokens or channels. Undefined (NaN) for one token, and where no peak is positive. Not gauge
    invariant: a large constant on all tokens drives it to 1 whatever the signal.

    Args:
        signal: as in `peaks`.

    Source: arXiv 2509.23876; Pielou's index *second-hand*, on these p_i *reconstructed*.
    """
    shares = peak_distribution(signal).flatten(1)
    if shares.shape[1] == 1:
        return torch.full_like(shares[:, 0], math.nan)
    return _entropy(shares) / math.log(shares.shape[1])


def divergence(signal: Float[Tensor, "b h w v"], reference: Float[Tensor, "_ _ _ _"]) -> Float64[Tensor, " b"]:
    """Jensen-Shannon divergence JSD(p, q) = S((p + q)/2) - (S(p) + S(q))/2 of two peak distributions, in bits.

    From 0 (equal) to 1 (no token in common); symmetric on equal grids, and its root is a metric there. Unchanged by
    positive factors on either signal. A reference on another grid is carried to this one by area (`regrid`).

    Args:
        signal: n of a step, as in `peaks`.
        reference: n of the step it is compared with: the step before (drift) or the last step.

    Returns:
        One number per sample; NaN where either has no positive peak.

    Raises:
        ShapeError: other samples or channels.

    Source: arXiv 2509.23876; the divergence *second-hand*, the reference and the change of grid *reconstructed*.
    """
    if signal.shape[0] != reference.shape[0] or signal.shape[-1] != reference.shape[-1]:
        raise ShapeError(
            f"both signals have the same samples and channels, got {tuple(signal.shape)} and {tuple(reference.shape)}."
        )
    own = peak_distribution(signal)
    other = regrid(peak_distribution(reference), (own.shape[1], own.shape[2]))
    p, q = own.flatten(1), other.flatten(1)
    nats = _entropy((p + q) / 2.0) - (_entropy(p) + _entropy(q)) / 2.0
    # Rounding may leave -1e-17 for equal distributions; NaN passes.
    return (nats / math.log(2.0)).clamp(0.0, 1.0)


def dispersion(signal: Float[Tensor, "b h w v"]) -> Float64[Tensor, " b"]:
    """The index of dispersion var_i(m_i) / mean_i(m_i) of the peaks, with the unbiased variance.

    Unlike evenness it grows with the size of the signal: c n has c times the dispersion of n. NaN for one token.

    Args:
        signal: as in `peaks`.

    Source: arXiv 2509.23876; *stated* in the authors' code, which logs it in place of the evenness.
    """
    flat = peaks(signal).flatten(1)
    if flat.shape[1] == 1:
        return torch.full_like(flat[:, 0], math.nan)
    return flat.var(1) / flat.mean(1)


def mean_over_steps(values: Sequence[Float[Tensor, " b"]], tokens: Sequence[int]) -> Float64[Tensor, " b"]:
    """The mean over steps, each step weighted by its number of tokens; steps where a value is NaN are left out.

    Args:
        values: of each step, one per sample.
        tokens: number of tokens of each step.

    Returns:
        One number per sample; NaN where no step has a value.

    Raises:
        ConfigError: not one number of tokens per step.

    Source: arXiv 2509.23876; a weighted mean is *stated*, its weights *reconstructed*.
    """
    if not values or len(values) != len(tokens):
        raise ConfigError(f"one number of tokens per step, got {len(values)} steps and {len(tokens)} numbers.")
    table = torch.stack([value.to(torch.float64) for value in values])
    weights = torch.tensor(tokens, dtype=torch.float64, device=table.device)[:, None].expand_as(table)
    known = ~table.isnan()
    return torch.where(known, table * weights, 0.0).sum(0) / (weights * known).sum(0)


def regrid(shares: Float[Tensor, "b h w"], target: Grid) -> Float64[Tensor, "b H W"]:
    """A distribution over the cells of a grid, spread evenly within each cell and collected by the cells of another.

    Each axis is a matrix R with R_ij = |cell_i of the target within cell_j of the source| / |cell_j|; its columns sum
    to 1, so that a distribution stays one whether the grid grows or shrinks.

    Args:
        shares: non-negative, of each sample.
        target: `(H, W)`.
    """
    rows, columns = (_overlaps(source, size) for source, size in zip(shares.shape[1:], target, strict=True))
    wide = shares.to(torch.float64)
    return rows.to(wide.device) @ wide @ columns.to(wide.device).T


def _overlaps(source: int, target: int) -> Float64[Tensor, "{target} {source}"]:
    """R of one axis, in units of 1 / (source * target), in which all borders are whole numbers."""
    low = torch.arange(target, dtype=torch.float64)[:, None] * source
    left = torch.arange(source, dtype=torch.float64) * target
    width = torch.minimum(low + source, left + target) - torch.maximum(low, left)
    return width.clamp_min(0.0) / target


def _normalised(masses: Float64[Tensor, "b h w"]) -> Float64[Tensor, "b h w"]:
    total = masses.sum((1, 2), keepdim=True)
    return torch.where(total > 0.0, masses / total, math.nan)


def _entropy(shares: Float64[Tensor, "b n"]) -> Float64[Tensor, " b"]:
    """-sum p ln p, with 0 ln 0 = 0."""
    return torch.special.entr(shares).sum(1)

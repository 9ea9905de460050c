"""The orthonormal DCT-II of one axis, and DSE's fusion in it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

__all__ = ["dct_band", "dct_lowpass", "dct_matrix", "dct_resample", "fuse_dct"]


def dct_matrix(size: int) -> Float64[Tensor, "{size} {size}"]:
    """C with `C x` = the orthonormal DCT-II of x, so that C^T C = I: torch-dct applied to the identity."""
    import torch_dct

    return torch_dct.dct(torch.eye(size, dtype=torch.float64, device="cpu"), norm="ortho").T.contiguous()


def dct_resample(source: int, target: int) -> Float64[Tensor, "{target} {source}"]:
    """C_H^T E C_h: the orthonormal coefficients copied into an axis of another size, the rest zero or dropped.

    A constant changes by sqrt(source / target); multiply by the inverse for resampling that keeps it.
    """
    low = min(source, target)
    return dct_matrix(target)[:low].T @ dct_matrix(source)[:low]


def dct_lowpass(size: int, kept: int) -> Float64[Tensor, "{size} {size}"]:
    """C^T D C: the projection of an axis onto its first `kept` DCT frequencies."""
    low = dct_matrix(size)[:kept]
    return low.T @ low


def dct_band(
    source: int, target: int
) -> tuple[Float64[Tensor, "{target} {source}"], Float64[Tensor, "{target} {target}"]]:
    """One axis of DSE in the DCT: (A, Q).

    A = C_H^T E C_h carries the source's coefficients; Q = C_H^T E E^T C_H is what their block replaces in the target.
    """
    return dct_resample(source, target), dct_lowpass(target, source)


def fuse_dct(
    previous: Float[Tensor, "*batch h w"], interpolated: Float[Tensor, "*batch H W"], gain: float
) -> Float[Tensor, "*batch H W"]:
    """Algorithm 1 of SSG (arXiv 2602.05534), line by line, one transform per call.

    Args:
        previous: the map of the step before.
        interpolated: the same map on the target grid, or zeros for the variant with a zero high band.
        gain: factor on the copied block; 1 as printed.
    """
    import torch_dct

    height, width = previous.shape[-2:]
    coarse = torch_dct.dct_2d(previous, norm="ortho")
    spectrum = torch_dct.dct_2d(interpolated, norm="ortho")
    spectrum[..., :height, :width] = gain * coarse
    return torch_dct.idct_2d(spectrum, norm="ortho")

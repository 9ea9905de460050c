"""DSE's fusion in the discrete Fourier transform."""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor

__all__ = ["PHASES", "dft_band", "fuse_dft"]

PHASES = ("centre", "origin")


def dft_band(
    source: int, target: int, phase: str
) -> tuple[Float64[Tensor, "{target} {source}"], Float64[Tensor, "{target} {target}"]]:
    """One axis of DSE in the orthonormal DFT: (A, Q), both real.

    A carries the source's coefficients to the bins of the same signed frequency; Q projects the target onto the bins
    that they replace.

    Args:
        source: size of the axis.
        target: size wanted, at least `source`.
        phase: "centre" aligns pixel centres, as interpolation does; "origin" aligns sample 0.
    """
    spectrum = torch.fft.fft(torch.eye(source, dtype=torch.float64, device="cpu"), dim=0, norm="ortho")
    carried = torch.zeros(target, source, dtype=torch.complex128, device="cpu")
    replaced = torch.zeros(target, 1, dtype=torch.float64, device="cpu")
    for old, new, weight in _bins(source, target, phase):
        carried[new] = weight * spectrum[old]
        replaced[new] = 1.0
    kept = replaced * torch.fft.fft(torch.eye(target, dtype=torch.float64, device="cpu"), dim=0, norm="ortho")
    return torch.fft.ifft(carried, dim=0, norm="ortho").real, torch.fft.ifft(kept, dim=0, norm="ortho").real


def fuse_dft(
    previous: Float[Tensor, "*batch h w"], interpolated: Float[Tensor, "*batch H W"], gain: float, phase: str
) -> Float[Tensor, "*batch H W"]:
    """Algorithm 1 of SSG (arXiv 2602.05534) with the 2-D DFT in place of the DCT, one transform per call.

    Args:
        previous: the map of the step before.
        interpolated: the same map on the target grid, or zeros for the variant with a zero high band.
        gain: factor on the copied block.
        phase: as in `dft_band`.
    """
    coarse = torch.fft.fft2(previous, norm="ortho")
    spectrum = torch.fft.fft2(interpolated, norm="ortho")
    (height, width), (rows, columns) = previous.shape[-2:], interpolated.shape[-2:]
    for old_y, new_y, weight_y in _bins(height, rows, phase):
        for old_x, new_x, weight_x in _bins(width, columns, phase):
            spectrum[..., new_y, new_x] = gain * weight_y * weight_x * coarse[..., old_y, old_x]
    return torch.fft.ifft2(spectrum, norm="ortho").real


def _bins(source: int, target: int, phase: str) -> Iterator[tuple[int, int, complex]]:
    """(source bin, target bin, weight) for each coefficient that is carried; the weight turns the phase.

    Zero-padding a spectrum aligns sample 0, pixel centres lie half a sample further: frequency f turns by
    exp(-i pi f (1/h - 1/H)). The Nyquist coefficient of an even axis stands for both +-h/2 and is shared between them.
    """
    shift = math.pi * (1.0 / source - 1.0 / target) if phase == "centre" else 0.0
    for frequency in range(-((source - 1) // 2), (source - 1) // 2 + 1):
        yield frequency % source, frequency % target, cmath.exp(-1j * shift * frequency)
    if source % 2 == 0:
        nyquist = source // 2
        if source == target:
            yield nyquist, nyquist, 1.0
        else:
            for frequency in (nyquist, -nyquist):
                yield nyquist, frequency % target, 0.5 * cmath.exp(-1j * shift * frequency)

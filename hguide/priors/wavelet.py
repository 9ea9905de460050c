"""DSE's fusion in a discrete wavelet transform, with PyWavelets."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hguide.errors import ConfigError
from hguide.priors.dct import dct_resample

__all__ = ["band_size", "fuse_wavelet", "wavelet_band", "wavelet_modes", "wavelet_names"]


def wavelet_names() -> list[str]:
    """The discrete wavelets of PyWavelets: "haar", "db2", "sym4", "bior2.2", ..."""
    import pywt

    return list(pywt.wavelist(kind="discrete"))


def wavelet_modes() -> list[str]:
    """The boundary modes of PyWavelets: "symmetric", "periodization", ..."""
    import pywt

    return list(pywt.Modes.modes)


def band_size(size: int, wavelet: str, mode: str, levels: int) -> int:
    """Length of the approximation band of an axis after `levels` levels."""
    return _sizes(size, wavelet, mode, levels)[-1]


def wavelet_band(
    source: int, target: int, wavelet: str, mode: str, levels: int
) -> tuple[Float64[Tensor, "{target} {source}"], Float64[Tensor, "{target} {target}"]]:
    """One axis of DSE in a wavelet transform: (A, Q), with S, D synthesis from and analysis to the approximation band.

    A = 2^(levels/2) S R, R the resampling of the source to the size of that band by the DCT that keeps constants;
    Q = S D is what the band contributes to the target. Over the two axes the factor is 2^levels, by which orthonormal
    analysis raises a constant.
    """
    import pywt

    sizes = _sizes(target, wavelet, mode, levels)
    analysis: Any = np.eye(target)
    for _ in range(levels):
        analysis, _detail = pywt.dwt(analysis, wavelet, mode, axis=0)
    synthesis: Any = np.eye(sizes[-1])
    for size in reversed(sizes[:-1]):
        synthesis = pywt.idwt(synthesis, None, wavelet, mode, axis=0)[:size]
    resample = sqrt(2.0**levels * sizes[-1] / source) * dct_resample(source, sizes[-1])
    return torch.from_numpy(synthesis) @ resample, torch.from_numpy(synthesis @ analysis)


def fuse_wavelet(
    previous: Float[Tensor, "*batch h w"],
    interpolated: Float[Tensor, "*batch H W"],
    gain: float,
    wavelet: str,
    mode: str,
    levels: int,
) -> Float[Tensor, "*batch H W"]:
    """The detail bands of the interpolated map, the approximation band from the previous map, one transform per call.

    Args:
        previous: the map of the step before.
        interpolated: the same map on the target grid, or zeros for the variant with zero detail bands.
        gain: factor on the approximation band 2^levels R l_prev.
        wavelet: name of a discrete wavelet of PyWavelets.
        mode: boundary mode of PyWavelets.
        levels: how often the approximation band is split again.
    """
    import pywt
    import torch_dct

    for axis in interpolated.shape[-2:]:
        _sizes(axis, wavelet, mode, levels)
    details = []
    band = interpolated.cpu().numpy()
    for _ in range(levels):
        size = band.shape[-2:]
        band, detail = pywt.dwt2(band, wavelet, mode)
        details.append((size, detail))
    coarse = torch_dct.dct_2d(previous.cpu(), norm="ortho")
    spectrum = coarse.new_zeros(band.shape)
    low_y, low_x = (min(sizes) for sizes in zip(coarse.shape[-2:], band.shape[-2:], strict=True))
    keeps_constants = sqrt(band.shape[-2] * band.shape[-1] / (coarse.shape[-2] * coarse.shape[-1]))
    spectrum[..., :low_y, :low_x] = keeps_constants * coarse[..., :low_y, :low_x]
    band = gain * 2.0**levels * torch_dct.idct_2d(spectrum, norm="ortho").numpy()
    for (height, width), detail in reversed(details):
        band = pywt.idwt2((band, detail), wavelet, mode)[..., :height, :width]
    return torch.from_numpy(np.ascontiguousarray(band)).to(interpolated)


def _sizes(size: int, wavelet: str, mode: str, levels: int) -> list[int]:
    """Length of an axis and of its approximation band after each level.

    Raises:
        ConfigError: an axis of one value cannot be reflected.
    """
    import pywt

    filter_length = pywt.Wavelet(wavelet).dec_len
    sizes = [size]
    for level in range(levels):
        if sizes[-1] == 1 and mode in ("reflect", "antireflect"):
            raise ConfigError(
                f"dse: mode {mode!r} cannot extend an axis of one value (axis of {size}, level {level + 1}); "
                "use another mode, for instance symmetric, or fewer levels."
            )
        sizes.append(pywt.dwt_coeff_len(sizes[-1], filter_length, mode))
    return sizes

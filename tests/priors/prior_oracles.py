"""Grids of the published models, and priors computed map by map with other libraries."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pywt
import torch
from scipy.fft import dctn, idctn


def square(*sides):
    return [(side, side) for side in sides]


SCHEDULES = {
    "VAR 256": square(1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    "VAR 512": square(1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    "HART 1024": square(1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
    "Infinity 1M": square(1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64),
    "Infinity 1M 4:3": [
        (1, 1), (2, 2), (4, 3), (8, 6), (12, 9), (16, 12), (20, 15),
        (24, 18), (28, 21), (36, 27), (48, 36), (60, 45), (72, 54),
    ],
    "Infinity 0.25M 2:3": [(1, 1), (2, 2), (2, 3), (4, 6), (6, 9), (10, 15), (14, 21), (18, 27), (22, 33), (26, 39)],
}  # fmt: skip
PAIRS = sorted({pair for grids in SCHEDULES.values() for pair in itertools.pairwise(grids)})
SMALL_PAIRS = [pair for pair in PAIRS if pair[1][0] * pair[1][1] <= 256]


def name(pair):
    (h, w), (H, W) = pair
    return f"{h}x{w}->{H}x{W}"


def random_map(*shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def interpolated(maps, target, mode):
    """Channel-last interpolation by one library call."""
    planes = torch.from_numpy(maps).movedim(-1, 0)[None]
    return torch.nn.functional.interpolate(planes, size=target, mode=mode)[0].movedim(0, -1).numpy()


def dse_dct(maps, target, mode="bilinear", gain=1.0, zero=False):
    """Algorithm 1 with scipy, `(h, w, v)` to `(H, W, v)`."""
    h, w = maps.shape[:2]
    high = np.zeros((*target, maps.shape[2])) if zero else interpolated(maps, target, mode)
    spectrum = dctn(high, axes=(0, 1), norm="ortho")
    spectrum[:h, :w] = gain * dctn(maps, axes=(0, 1), norm="ortho")
    return idctn(spectrum, axes=(0, 1), norm="ortho")


def trigonometric(source, target, phase):
    """One axis: the trigonometric polynomial through the samples, evaluated at the target's positions.

    No spectrum is padded here: positions say where samples lie, and the Nyquist term is its real part. The factor is
    the attenuation of a copied orthonormal block.
    """
    half = 0.5 if phase == "centre" else 0.0
    at_source, at_target = (np.arange(source) + half) / source, (np.arange(target) + half) / target
    total = np.zeros((target, source))
    for frequency in range(-(source // 2), source // 2 + 1):
        weight = 0.5 if 2 * abs(frequency) == source else 1.0
        total += weight * np.cos(2 * np.pi * frequency * (at_target[:, None] - at_source[None, :]))
    return total / source * np.sqrt(source / target)


def dse_dft(maps, target, mode="bilinear", gain=1.0, zero=False, phase="centre"):
    """The DFT prior with numpy: low part by trigonometric interpolation, high part by masking frequencies."""
    sides = list(zip(maps.shape[:2], target, strict=True))
    rows, columns = (np.eye(size) if size == old else trigonometric(old, size, phase) for old, size in sides)
    low = gain * np.einsum("Hh,Ww,hwv->HWv", rows, columns, maps)
    if zero:
        return low
    spectrum = np.fft.fft2(interpolated(maps, target, mode), axes=(0, 1))
    covered = [2 * np.abs(np.fft.fftfreq(size) * size) <= old + 1e-9 for old, size in sides]
    spectrum[np.ix_(*covered)] = 0.0
    return low + np.fft.ifft2(spectrum, axes=(0, 1)).real


def dse_wavelet(maps, target, wavelet, boundary="symmetric", levels=1, mode="bilinear", zero=False, gain=1.0):
    """The wavelet prior with PyWavelets' multilevel transform and scipy's DCT."""
    high = np.zeros((*target, maps.shape[2])) if zero else interpolated(maps, target, mode)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Level value")
        bands = pywt.wavedec2(high, wavelet, mode=boundary, level=levels, axes=(0, 1))
        h, w = maps.shape[:2]
        bh, bw = bands[0].shape[:2]
        spectrum = np.zeros_like(bands[0])
        low = dctn(maps, axes=(0, 1), norm="forward")[:bh, :bw]
        spectrum[:h, :w] = low
        bands[0] = gain * 2.0**levels * idctn(spectrum, axes=(0, 1), norm="forward")
        result = pywt.waverec2(bands, wavelet, mode=boundary, axes=(0, 1))
    return result[: target[0], : target[1]]


def lowpass(maps, cutoff):
    """The DCT low-pass with scipy."""
    spectrum = dctn(maps, axes=(0, 1), norm="ortho")
    spectrum[int(np.ceil(cutoff * maps.shape[0])) :] = 0.0
    spectrum[:, int(np.ceil(cutoff * maps.shape[1])) :] = 0.0
    return idctn(spectrum, axes=(0, 1), norm="ortho")

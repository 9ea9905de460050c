"""Power of pictures and latents by spatial frequency."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from hguide.errors import ConfigError

__all__ = ["bin_frequencies", "luminance", "radial_power"]

LUMA = (0.299, 0.587, 0.114)


def luminance(images: Float[Tensor, "n 3 H W"]) -> Float64[Tensor, "n 1 H W"]:
    """0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), float64 on the CPU.

    Args:
        images: in [0, 1].
    """
    weights = torch.tensor(LUMA, dtype=torch.float64).view(1, 3, 1, 1)
    return (images.detach().to("cpu", torch.float64) * weights).sum(1, keepdim=True)


def bin_frequencies(bins: int) -> Float64[Tensor, " bins"]:
    """Upper edge of each bin, as a share of the Nyquist frequency: 1/bins to 1."""
    return torch.arange(1, bins + 1, dtype=torch.float64) / bins


def radial_power(
    fields: Float[Tensor, "n c H W"], bins: int | None = None, window: bool = True
) -> Float64[Tensor, "n bins"]:
    """Mean |FFT|^2 over channels and over the frequencies of each radial bin, one row per field.

    The mean of each channel is removed, then a Hann window is applied, so that the edges of a picture, which are no
    period of it, do not pass for high frequencies. Bin i holds the radii in (i/bins, (i+1)/bins] of Nyquist (1/2
    cycle per pixel on each axis); the constant and the corners beyond Nyquist are left out.

    Args:
        fields: pictures or latents.
        bins: number of bins, by default half the smaller side.
        window: False for latents, whose few positions a window would hide.

    Raises:
        ConfigError: more bins than the grid fills.
    """
    height, width = fields.shape[2:]
    bins = bins or max(1, min(height, width) // 2)
    place, sizes = _bins(height, width, bins)
    if (sizes == 0).any():
        raise ConfigError(
            f"a grid of {height}x{width} does not fill {bins} radial bins; use {min(height, width) // 2}."
        )
    planes = fields.detach().to("cpu", torch.float64)
    planes = planes - planes.mean((2, 3), keepdim=True)
    if window:
        planes = planes * torch.outer(_hann(height), _hann(width))
    power = torch.fft.fft2(planes).abs().square().mean(1).flatten(1)
    out = torch.zeros(len(power), bins + 1, dtype=torch.float64).index_add_(1, place, power)
    return out[:, :bins] / sizes


def _hann(size: int) -> Tensor:
    return torch.hann_window(size, periodic=True, dtype=torch.float64)


def _bins(height: int, width: int, bins: int) -> tuple[Int[Tensor, " HW"], Float64[Tensor, " bins"]]:
    """Bin of each frequency, `bins` for those left out, and the number in each."""
    rows, columns = torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.fftfreq(width, dtype=torch.float64)
    radius = 2 * torch.sqrt(rows[:, None].square() + columns[None].square())
    # A radius on an edge belongs below it, whatever the root's last bit says.
    place = torch.ceil(radius * bins - 1e-9).long() - 1
    place = torch.where((place < 0) | (place >= bins), bins, place).flatten()
    return place, torch.bincount(place, minlength=bins + 1)[:bins].double()

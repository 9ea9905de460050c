"""Radial power-spectrum ratio: at which frequencies generated pictures have too much or too little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hguide.errors import NumericalError
from hguide.experiments.measures.moments import Moments
from hguide.experiments.measures.pair_measure import PairMeasure
from hguide.experiments.measures.radial_power import bin_frequencies, luminance, radial_power
from hguide.experiments.measures.rows import checked_pair

__all__ = ["BANDS", "PowerSpectrumRatio", "SpectrumRatio", "band_statistic", "power_ratio", "spectrum_statistic"]

# Shares of the Nyquist frequency: above the lower, up to the upper bound.
BANDS = {"low": (0.0, 0.25), "middle": (0.25, 0.5), "high": (0.5, 1.0)}


@dataclass(frozen=True, eq=False)
class SpectrumRatio:
    """Power of the sample over that of the reference; 1 everywhere is best.

    Attributes:
        frequencies: upper edge of each bin as a share of Nyquist.
        ratio: per bin.
        bands: the mean over the bins of "low", "middle" and "high" of the sample's power over the reference's.
    """

    frequencies: Float64[Tensor, " bins"]
    ratio: Float64[Tensor, " bins"]
    bands: dict[str, float]


def power_ratio(sample: Float64[Tensor, " bins"], reference: Float64[Tensor, " bins"]) -> SpectrumRatio:
    """Ratio of two mean radial powers.

    Args:
        sample: mean of `radial_power` over generated pictures.
        reference: the same over real pictures.

    Raises:
        NumericalError: the reference has no power in some bin.
    """
    if not (reference > 0).all():
        empty = [round(float(edge), 3) for edge in bin_frequencies(len(reference))[reference <= 0]]
        raise NumericalError(f"the reference has no power up to the frequencies {empty[:4]} (Nyquist = 1).")
    bands = {name: _band(sample, name) / _band(reference, name) for name in BANDS if _inside(len(sample), name).any()}
    return SpectrumRatio(bin_frequencies(len(sample)), sample / reference, bands)


def _inside(bins: int, band: str) -> Tensor:
    edges, (low, high) = bin_frequencies(bins), BANDS[band]
    return (edges > low + 1e-9) & (edges <= high + 1e-9)


def _band(power: Tensor, band: str) -> float:
    return float(power[_inside(len(power), band)].mean())


def band_statistic(
    sample: Float[Tensor, "n bins"], reference: Float[Tensor, "m bins"], band: str
) -> Callable[[Float64[Tensor, " n"], Float64[Tensor, " n"]], float]:
    """One band's ratio as a function of how often each picture is counted; for `bootstrap`.

    Args:
        sample: `radial_power` of generated pictures.
        reference: of real pictures, as many.
        band: a key of `BANDS`.
    """
    mine, theirs = checked_pair(sample, reference)
    inside = _inside(mine.shape[1], band)
    mine, theirs = mine[:, inside].mean(1), theirs[:, inside].mean(1)

    def statistic(sample_weights: Tensor, reference_weights: Tensor) -> float:
        above = sample_weights @ mine / sample_weights.sum()
        return float(above / (reference_weights @ theirs / reference_weights.sum()))

    return statistic


def spectrum_statistic(
    sample: Float[Tensor, "n bins"], reference: Float[Tensor, "m bins"]
) -> Callable[[Float64[Tensor, " n"], Float64[Tensor, " n"]], float]:
    """mean over bins of |log (mean power of the sample / mean power of the reference)|; for `bootstrap`.

    Args:
        sample: `radial_power` of generated pictures.
        reference: of real pictures, as many.
    """
    mine, theirs = checked_pair(sample, reference)

    def statistic(sample_weights: Tensor, reference_weights: Tensor) -> float:
        ratio = (sample_weights @ mine / sample_weights.sum()) / (reference_weights @ theirs / reference_weights.sum())
        return float(ratio.log().abs().mean())

    return statistic


class PowerSpectrumRatio(PairMeasure[Moments]):
    """Ratio of the mean radial power of luminance, generated over real, fed pictures batch by batch.

    After arXiv 2602.05534, Fig. 7; window, luminance and bins are *reconstructed*: see `radial_power`.

    Args:
        bins: radial bins; by default half the smaller side of the first pictures.
    """

    name = "power ratio"
    higher_is_better = None

    def __init__(self, bins: int | None = None) -> None:
        super().__init__(Moments(), bins=bins)

    def update(self, images: Float[Tensor, "n 3 H W"], real: bool) -> None:
        """Take a batch of pictures in [0, 1]; `real` says whether they are of the reference."""
        super().update(radial_power(luminance(images), self._options["bins"]), real)

    def compute(self) -> SpectrumRatio:
        """Ratio per bin and band of what was gathered."""
        self.check_counts(1)
        assert isinstance(self.sample.mean, torch.Tensor)
        assert isinstance(self.reference.mean, torch.Tensor)
        return power_ratio(self.sample.mean, self.reference.mean)

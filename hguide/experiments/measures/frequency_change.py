"""What each step adds at which frequency, seen against what the previous step's grid can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hguide.errors import ConfigError, ShapeError
from hguide.experiments.measures.radial_power import bin_frequencies, radial_power
from hguide.grids import Grid

__all__ = ["FrequencyChange", "FrequencyChangeMeter", "frequency_change"]

# Below this share of a step's whole power a bin is rounding, and its logarithm is noise.
LEAST_SHARE = 1e-12


@dataclass(frozen=True, eq=False)
class FrequencyChange:
    """Change of log magnitude from step to step.

    Attributes:
        frequencies: `(bins,)` upper edges, as a share of the Nyquist frequency of the maps.
        change: `(K-1, bins)`, row k is ln|F_{k+1}| - ln|F_k| of the root-mean-square magnitude per bin.
        nyquist: `(K-1,)` Nyquist frequency of the grid of step k, the earlier one, in the same units.
        below: `(K-1,)` mean change at and below it: what the step alters of what was settled; NaN where there is no
            such bin.
        above: `(K-1,)` mean change above it: the detail that the step adds; NaN where there is no such bin.
    """

    frequencies: Float64[Tensor, " bins"]
    change: Float64[Tensor, "steps bins"]
    nyquist: Float64[Tensor, " steps"]
    below: Float64[Tensor, " steps"]
    above: Float64[Tensor, " steps"]


class FrequencyChangeMeter:
    """Change of log magnitude per frequency against the previous step's Nyquist, fed runs batch by batch.

    After arXiv 2602.05534, Fig. 4a; the bins, the mean over pictures inside the logarithm and the window are
    *reconstructed*.

    Args:
        scales: the grid of each step, in order.
        bins: radial bins, by default half the smaller side of the maps.
        window: Hann window, for decoded pictures; False for latents.
    """

    name = "frequency change"

    def __init__(self, scales: Sequence[Grid], bins: int | None = None, window: bool = True) -> None:
        if len(scales) < 2:
            raise ConfigError(f"a change from step to step needs at least two scales, got {len(scales)}.")
        self.scales = tuple(scales)
        self.bins = bins
        self.window = window
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.count = 0
        self.size: Grid | None = None
        self._power: Tensor | None = None

    def update(self, steps: Sequence[Float[Tensor, "n c H W"]]) -> None:
        """Take a batch of runs.

        Args:
            steps: what is known after each step, brought to one size: decoded pictures, or accumulated latents.

        Raises:
            ConfigError: not one map per scale.
            ShapeError: the maps differ in size, or from those before.
        """
        if len(steps) != len(self.scales):
            raise ConfigError(f"one map per scale: {len(self.scales)} scales, got {len(steps)} maps.")
        if len({tuple(step.shape) for step in steps}) > 1:
            raise ShapeError(f"the maps of all steps have one shape, got {[tuple(step.shape) for step in steps]}.")
        height, width = steps[0].shape[2:]
        power = torch.stack([radial_power(step, self.bins, self.window).sum(0) for step in steps])
        self._add(len(steps[0]), (height, width), power)

    def merge(self, other: FrequencyChangeMeter) -> None:
        """Take what another instance with the same options has gathered."""
        if (self.scales, self.bins, self.window) != (other.scales, other.bins, other.window):
            raise ConfigError("frequency changes of other scales, bins or window cannot be merged.")
        if other._power is not None and other.size is not None:
            self._add(other.count, other.size, other._power)

    def _add(self, count: int, size: Grid, power: Tensor) -> None:
        if self._power is None or self.size is None:
            self.size, self._power = size, torch.zeros_like(power)
        if size != self.size:
            raise ShapeError(f"maps of {size[0]}x{size[1]} after maps of {self.size[0]}x{self.size[1]}.")
        self.count += count
        self._power = self._power + power

    def compute(self) -> FrequencyChange:
        """Changes over what was gathered.

        Raises:
            ConfigError: nothing was gathered.
        """
        if self._power is None or self.size is None:
            raise ConfigError("a frequency change needs at least one run, got none.")
        return frequency_change(self._power, self.scales, self.size)


def frequency_change(power: Float64[Tensor, "k bins"], scales: Sequence[Grid], size: Grid) -> FrequencyChange:
    """Changes from the radial power after each step, summed or averaged over pictures.

    Args:
        power: one row per scale.
        scales: the grid of each step, in order.
        size: height and width of the maps that the power is of.
    """
    floor = LEAST_SHARE * power.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    change = (0.5 * torch.maximum(power, floor).log()).diff(dim=0)
    frequencies = bin_frequencies(change.shape[1])
    shares = [min(h / size[0], w / size[1]) for h, w in scales[:-1]]
    nyquist = torch.tensor(shares, dtype=torch.float64)
    settled = frequencies[None] <= nyquist[:, None] + 1e-9
    return FrequencyChange(frequencies, change, nyquist, _mean_where(change, settled), _mean_where(change, ~settled))


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum(1) / chosen.sum(1)

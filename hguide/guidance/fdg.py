"""Frequency-decoupled guidance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from hguide.errors import near_matches
from hguide.guidance.bands import Bands, PyramidLowPass
from hguide.guidance.null_contrast import NullContrast
from hguide.priors import LowPass, SeparablePrior

__all__ = ["FDG"]

_BANDS = ("laplacian", "dct")


@dataclass(frozen=True)
class FDG(NullContrast):
    """FDG: l' = c + t sum_b gain_b B_b (c - u), CFG with a strength of its own for each band of spatial frequency.

    B_b are the levels of a Laplacian pyramid of each channel's map, or octaves of its orthonormal DCT; they sum to
    the identity, so equal gains are CFG. In the convention of the source, w_b = 1 + t gain_b. Needs full maps. A map
    has no more levels than its size allows: at 1x1 all lies in the lowest.

    Args:
        strength: see `NullContrast`.
        w: see `NullContrast`.
        schedule: see `NullContrast`.
        gains: of the bands, the lowest first (diffusers lists the highest first); their number is that of the levels.
        bands: "laplacian" (see `PyramidLowPass`) or "dct" (low-passes at 1/2, 1/4, ... of the Nyquist frequency).
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: no gains, or one that is not finite; what `NullContrast` raises.

    Source: arXiv 2506.19713; the rule per level of a Laplacian pyramid is *stated* in diffusers' guider, for images
    of diffusion. *Reconstructed*: on maps of logits, the default gains, the filter at odd sizes (diffusers pads to
    powers of two), and the bands in the DCT. The source's optional weight for the part parallel to c is left out.
    """

    gains: Sequence[float] = (0.5, 1.5)
    bands: str = "laplacian"

    partial: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "gains", tuple(self.gains))
        super().__post_init__()

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = super().problems()
        if not self.gains or not all(math.isfinite(gain) for gain in self.gains):
            found.append(f"gains are finite numbers, one per band, got {list(self.gains)}")
        if self.bands not in _BANDS:
            found.append(f"unknown bands {self.bands!r}: {near_matches(self.bands, _BANDS)}")
        return found

    def contrast(
        self, given: Float[Tensor, "b h w v"], null: Float[Tensor, "b h w v"], t: float
    ) -> Float[Tensor, "b h w v"]:
        """c + t W n."""
        difference = given - null
        gains = tuple(map(float, self.gains))
        if len(set(gains)) == 1:
            return given + t * gains[0] * difference
        lows = tuple(self._low(level) for level in range(len(gains) - 1, 0, -1))
        return given + t * Bands(gains, lows)(difference, (given.shape[1], given.shape[2]))

    def _low(self, level: int) -> SeparablePrior:
        return PyramidLowPass(level) if self.bands == "laplacian" else LowPass(0.5**level)

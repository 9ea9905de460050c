"""DSE, the prior of Scaled Spatial Guidance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import ConfigError, ShapeError, near_matches
from hguide.grids import Grid, Step
from hguide.priors.base import SeparablePrior
from hguide.priors.dct import dct_band, fuse_dct
from hguide.priors.dft import PHASES, dft_band, fuse_dft
from hguide.priors.spatial import INTERPOLATIONS, interpolate, interpolation_matrix
from hguide.priors.wavelet import band_size, fuse_wavelet, wavelet_band, wavelet_modes, wavelet_names

__all__ = ["DSE"]

_HIGH = ("interpolated", "zero")
_GAINS = ("literal", "amplitude")


@dataclass(frozen=True)
class DSE(SeparablePrior):
    """Low frequencies from the map of the step before, high frequencies from its interpolation.

    With U the interpolation, A the step that carries the coarse spectrum and B = Q U the part of the interpolation
    that it replaces, per axis:

        P = U_h (x) U_w + g A_h (x) A_w - B_h (x) B_w,        high="zero": P = g A_h (x) A_w.

    **Gain.** Copying an orthonormal h x w block into an H x W spectrum multiplies a constant by sqrt(hw / HW): 3.0 at
    13x13 becomes 2.4375 at 16x16. `gain="literal"` (g = 1) is the algorithm as printed; `"amplitude"`
    (g = sqrt(HW / hw)) keeps constants; a number is g itself. A wavelet's approximation band is 2^levels R l_prev,
    which keeps constants by definition, so both words mean g = 1 there.

    On equal grids there is nothing to carry: P is the identity, for a number g times it.

    Args:
        transform: "dct", "dft", or a discrete wavelet of PyWavelets ("haar", "db2", "bior2.2", ...).
        interpolation: "nearest", "bilinear", "bicubic", "area" (`align_corners=False`) or "lanczos".
        high: "interpolated", or "zero" (the variant of the paper's table 5).
        gain: "literal", "amplitude" or a number.
        phase: for "dft": "centre" aligns pixel centres as interpolation does, "origin" aligns sample 0.
        levels: for a wavelet: how often the approximation band is split again.
        mode: for a wavelet: boundary mode of PyWavelets.

    Raises:
        ConfigError: unknown values, or options that the transform does not have; all of them in one message.

    Source: arXiv 2602.05534, algorithm 1 (DCT). *Reconstructed*: the interpolation mode, the gain, and the forms in
    the DFT and in wavelets, for which the paper gives no formula.
    """

    transform: str = "dct"
    interpolation: str = "bilinear"
    high: str = "interpolated"
    gain: float | str = "literal"
    phase: str = "centre"
    levels: int = 1
    mode: str = "symmetric"

    def __post_init__(self) -> None:
        problems = [*self._unknown(), *self._contradictions()]
        if problems:
            raise ConfigError("dse: " + "; ".join(problems))

    @property
    def wavelet(self) -> bool:
        """Whether the transform is a wavelet."""
        return self.transform not in ("dct", "dft")

    def factors(self, source: Grid, target: Grid, step: Step | None = None) -> tuple[tuple[Tensor, Tensor], ...]:
        """The terms of P; one where the high band is zero or the grids are equal.

        Raises:
            ShapeError: the source is larger than the target along an axis.
        """
        _require_growth(source, target)
        gain = self.gain_factor(source, target)
        if source == target:
            rows, columns = (torch.eye(size, dtype=torch.float64, device="cpu") for size in target)
            return ((gain * rows, columns),)
        (carry_y, split_y), (carry_x, split_x) = (self._band(*sizes) for sizes in zip(source, target, strict=True))
        low = (gain * carry_y, carry_x)
        if self.high == "zero":
            return (low,)
        rows, columns = (interpolation_matrix(self.interpolation, *sizes) for sizes in zip(source, target, strict=True))
        return (rows, columns), low, (-split_y @ rows, split_x @ columns)

    def gain_factor(self, source: Grid, target: Grid) -> float:
        """The number g between two grids."""
        if not isinstance(self.gain, str):
            return float(self.gain)
        if self.gain == "literal" or self.wavelet:
            return 1.0
        return math.sqrt((target[0] * target[1]) / (source[0] * source[1]))

    def reference(
        self, logits: Float[Tensor, "*batch h w v"], target: Grid, step: Step | None = None
    ) -> Float[Tensor, "*batch H W v"]:
        """The same prior by transforms of each map, as algorithm 1 prints it; slow, for comparison.

        Half precision is computed in float32. The wavelets run on the CPU.

        Raises:
            ShapeError: the source is larger than the target along an axis.
        """
        source = (logits.shape[-3], logits.shape[-2])
        _require_growth(source, target)
        gain = self.gain_factor(source, target)
        if source == target:
            return gain * logits
        maps = logits.movedim(-1, -3)
        previous = maps.reshape(-1, *maps.shape[-3:]).to(torch.promote_types(logits.dtype, torch.float32))
        high = interpolate(previous, target, self.interpolation)
        if self.high == "zero":
            high = torch.zeros_like(high)
        if self.transform == "dct":
            fused = fuse_dct(previous, high, gain)
        elif self.transform == "dft":
            fused = fuse_dft(previous, high, gain, self.phase)
        else:
            fused = fuse_wavelet(previous, high, gain, self.transform, self.mode, self.levels)
        return fused.reshape(*maps.shape[:-2], *target).movedim(-3, -1).to(logits.dtype)

    def note(self, source: Grid, target: Grid) -> str:
        """What is kept of the map of the step before; for a wavelet, the band that is lost.

        >>> DSE(transform="haar").note((13, 13), (16, 16))
        '13x13 -> 16x16: approximation band 8x8 of haar, level 1; DCT frequencies 8-12 (height), 8-12 (width) are lost'
        """
        _require_growth(source, target)
        sizes = f"{source[0]}x{source[1]} -> {target[0]}x{target[1]}"
        if source == target:
            return f"{sizes}: identity, gain {self.gain_factor(source, target):.4g}"
        if not self.wavelet:
            kept = self.gain_factor(source, target) * math.sqrt(source[0] * source[1] / (target[0] * target[1]))
            block = f"low {self.transform} block {source[0]}x{source[1]}"
            return f"{sizes}: {block}; a constant is multiplied by {kept:.4g}"
        band = tuple(band_size(size, self.transform, self.mode, self.levels) for size in target)
        lost = [
            f"{low}-{size - 1} ({axis})" if size > low + 1 else f"{low} ({axis})"
            for low, size, axis in zip(band, source, ("height", "width"), strict=True)
            if size > low
        ]
        tail = f"DCT frequencies {', '.join(lost)} are lost" if lost else "no frequency is lost"
        return f"{sizes}: approximation band {band[0]}x{band[1]} of {self.transform}, level {self.levels}; {tail}"

    def _band(self, source: int, target: int) -> tuple[Tensor, Tensor]:
        if self.transform == "dct":
            return dct_band(source, target)
        if self.transform == "dft":
            return dft_band(source, target, self.phase)
        return wavelet_band(source, target, self.transform, self.mode, self.levels)

    def _unknown(self) -> list[str]:
        """Values that no transform knows."""
        problems = []
        for option, known in (("interpolation", INTERPOLATIONS), ("high", _HIGH), ("phase", PHASES)):
            if (value := getattr(self, option)) not in known:
                problems.append(f"unknown {option} {value!r}: {near_matches(str(value), known)}")
        if self.wavelet and self.transform not in (names := wavelet_names()):
            problems.append(
                f"unknown transform {self.transform!r}: {near_matches(self.transform, ['dct', 'dft', *names])}"
            )
        if self.mode != "symmetric" and self.mode not in (modes := wavelet_modes()):
            problems.append(f"unknown mode {self.mode!r}: {near_matches(self.mode, modes)}")
        if isinstance(self.gain, str) and self.gain not in _GAINS:
            problems.append(f"unknown gain {self.gain!r}, not a number either: {near_matches(self.gain, _GAINS)}")
        elif not isinstance(self.gain, str) and not math.isfinite(self.gain):
            problems.append(f"gain must be finite, got {self.gain!r}")
        if self.levels < 1:
            problems.append(f"levels must be at least 1, got {self.levels!r}")
        return problems

    def _contradictions(self) -> list[str]:
        """Options given to a transform that does not have them."""
        problems = []
        if self.transform != "dft" and self.phase == "origin":
            problems.append(f"phase is an option of the dft, but transform is {self.transform!r}")
        if not self.wavelet:
            if self.levels > 1:
                problems.append(f"levels is an option of wavelets, but transform is {self.transform!r}")
            if self.mode != "symmetric":
                problems.append(f"mode is an option of wavelets, but transform is {self.transform!r}")
        return problems


def _require_growth(source: Grid, target: Grid) -> None:
    if source[0] > target[0] or source[1] > target[1]:
        raise ShapeError(
            f"dse carries a coarse map to a finer grid, but the map is {source[0]}x{source[1]} and the target "
            f"{target[0]}x{target[1]}; use a spatial prior (area, bilinear, ...) where a grid shrinks."
        )

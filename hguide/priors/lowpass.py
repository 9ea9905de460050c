"""A low-pass for generators whose steps share one grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hguide.errors import ConfigError
from hguide.grids import Grid, Step
from hguide.priors.base import SeparablePrior
from hguide.priors.dct import dct_lowpass
from hguide.schedules import Schedule

__all__ = ["LowPass"]


@dataclass(frozen=True)
class LowPass(SeparablePrior):
    """P = L_h (x) L_w with L = C^T D C: an orthonormal DCT low-pass on one grid, the first ceil(cutoff n) frequencies.

    Where all steps share one grid (VQ-Diffusion) there is no coarser map; the low band of the map of the step before
    takes its place. *Reconstructed*: the paper reports such an adaptation (arXiv 2602.05534, table 7), but no formula.

    Args:
        cutoff: fraction of the Nyquist frequency in (0, 1], or a schedule of it; 1 keeps the map.

    Raises:
        ConfigError: a number outside (0, 1]; when called, a schedule without a step or with such a value, or grids
            that differ.
    """

    cutoff: float | Schedule = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.cutoff, Schedule):
            _require_fraction(self.cutoff)

    @property
    def depends_on_step(self) -> bool:
        """True where the cutoff is a schedule."""
        return isinstance(self.cutoff, Schedule)

    def factors(self, source: Grid, target: Grid, step: Step | None = None) -> tuple[tuple[Tensor, Tensor], ...]:
        """The low-pass of each axis."""
        height, width = self._kept(source, target, step)
        return ((dct_lowpass(target[0], height), dct_lowpass(target[1], width)),)

    def reference(
        self, logits: Float[Tensor, "*batch h w v"], target: Grid, step: Step | None = None
    ) -> Float[Tensor, "*batch H W v"]:
        """The same by a DCT of each map, zeroing its high frequencies; half precision is computed in float32."""
        import torch_dct

        height, width = self._kept((logits.shape[-3], logits.shape[-2]), target, step)
        maps = logits.movedim(-1, -3).to(torch.promote_types(logits.dtype, torch.float32))
        spectrum = torch_dct.dct_2d(maps, norm="ortho")
        spectrum[..., height:, :] = 0.0
        spectrum[..., :, width:] = 0.0
        return torch_dct.idct_2d(spectrum, norm="ortho").movedim(-3, -1).to(logits.dtype)

    def note(self, source: Grid, target: Grid) -> str:
        """The frequencies that are kept."""
        size = f"{target[0]}x{target[1]}"
        if isinstance(self.cutoff, Schedule):
            return f"{size}: low DCT frequencies, by schedule"
        height, width = self._kept(source, target, None)
        return f"{size}: low {height}x{width} of the DCT frequencies"

    def _kept(self, source: Grid, target: Grid, step: Step | None) -> Grid:
        if source != target:
            raise ConfigError(
                f"lowpass works where steps share one grid, but the map is {source[0]}x{source[1]} and the target "
                f"{target[0]}x{target[1]}; use dse where grids grow."
            )
        cutoff = self.cutoff
        if isinstance(cutoff, Schedule):
            if step is None:
                raise ConfigError("lowpass has a schedule of cutoffs and needs the step; none was given.")
            cutoff = cutoff(step)
            _require_fraction(cutoff)
        # A cutoff such as 0.1 of 30 frequencies means 3, though 0.1 * 30 lies a rounding error above.
        height, width = (math.ceil(cutoff * size * (1.0 - 1e-12)) for size in target)
        return height, width


def _require_fraction(cutoff: float) -> None:
    if not 0.0 < cutoff <= 1.0:
        raise ConfigError(f"lowpass: cutoff is a fraction of the Nyquist frequency in (0, 1], got {cutoff!r}.")

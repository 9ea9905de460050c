"""Scaled Spatial Guidance with a trust region in the Kullback-Leibler divergence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hguide.grids import Step
from hguide.guidance.kl_trust_region import reverse_kl_optimum
from hguide.guidance.null_contrast import widened
from hguide.guidance.null_strength import Strength
from hguide.guidance.ssg import SSG

__all__ = ["SSGKL"]

# Below this the rounding of float32 may decide.
_LEAST_TOLERANCE = 1e-5


@dataclass(frozen=True)
class SSGKL(SSG):
    """SSG held by a divergence: l'_k maximises beta_k <q', D> - KL(q || q'), D = l_k - P l_{k-1}, q = softmax(l_k).

    The optimum is q'_i = q_i / (nu - beta_k D_i), nu from sum q' = 1, solved per token. Its first step is SSG: the
    natural gradient of the objective at l' = l is beta D, and the two differ by O(beta^2). With the other divergence,
    KL(q' || q), the optimum is l + beta D, SSG itself: that direction needs no method of its own.

    A token that SSG suppresses by exp(-x) loses a factor of about 1 + x only. In return a token whose beta D exceeds
    the mean by about 1 takes mass however improbable it was: choose beta well below SSG's.

    Args:
        strength: see `SSG`; 0.1 where none is given.
        prior: see `SSG`.
        schedule: see `SSG`.
        remember: see `SSG`.
        stride: see `SSG`.
        decay: see `SSG`.
        positions: see `SSG`.
        bits: True where the channels are logit differences of independent bits rather than logits of one token.
        tolerance: largest |sum q' - 1| of a token, at least 1e-5.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: an option out of range; what `SSG` raises.
        NumericalError: logits that are not finite.

    Source: arXiv 2602.05534, appendix C.2, *reconstructed*: with a gain linear in l' as in its eq. 7 there is no
    optimum under KL(q' || q), and under KL(q || q') only for small beta; here the gain is the expectation <q', D>.
    `bits` and `tolerance` are options of this project.
    """

    strength: Strength = 0.1
    bits: bool = False
    tolerance: float = 1e-4

    def problems(self) -> list[str]:
        """What is wrong with the options."""
        found = super().problems()
        if not _LEAST_TOLERANCE <= self.tolerance < 1.0:
            found.append(f"tolerance lies in [{_LEAST_TOLERANCE:g}, 1), got {self.tolerance!r}")
        return found

    def _extrapolate(self, logits: Tensor, previous: Tensor, beta: float, step: Step) -> Tensor:
        wide = widened(logits)
        tilt = super()._extrapolate(wide, widened(previous), beta, step) - wide
        if not self.bits:
            return reverse_kl_optimum(wide, tilt, self.tolerance).to(logits.dtype)
        guided = reverse_kl_optimum(_two_states(wide), _two_states(tilt), self.tolerance)
        return (guided[..., 1] - guided[..., 0]).to(logits.dtype)


def _two_states(difference: Tensor) -> Tensor:
    """Logits of the values 0 and 1 of each bit."""
    return torch.stack((-0.5 * difference, 0.5 * difference), -1)

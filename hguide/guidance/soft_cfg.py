"""SoftCFG: classifier-free guidance against a null stream that trusts sure tokens less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hguide.guidance.contrast import Contrast
from hguide.schedules import Ramp, Schedule
from hguide.streams import Perturbation, Stream

__all__ = ["SoftCFG"]


@dataclass(frozen=True)
class SoftCFG(Contrast):
    """SoftCFG: l' = l + t (l - l_soft), classifier-free guidance against a null stream with weighted cached values.

    The cached value of each token so far is multiplied by w_i = 1 - p_i, p_i the probability with which the token was
    drawn; step normalisation bounds what is taken away in all, w_i = 1 - p_i / sum_j p_j. Keys stay. Where p is 0, and
    at the first step, this is `cfg`.

    Args:
        strength: t at the last step; a number, multiplied by the schedule, or a schedule or one number per step used
            as it is. Published for models that work token by token only.
        step_norm: whether the weights are normalised.
        schedule: unit schedule of a number; VAR's ramp k/(K-1), so that it compares with `cfg`.
        start: see `Method`.
        stop: see `Method`.

    Raises:
        ConfigError: a strength that is not finite.

    Source: arXiv 2510.00996, rule and normalisation *second-hand*. *Reconstructed* for next-scale models: the tokens
    so far are those of all earlier scales, each weighted at the place that predicted it; the ramp.
    """

    strength: float | Schedule | Sequence[float] = 1.5
    step_norm: bool = True
    schedule: Schedule = field(default_factory=Ramp, kw_only=True)

    def changes(self, stream: Stream) -> bool:
        """Only streams under the given condition, in the forward pass as it is."""
        return stream.condition == "given" and stream.perturb is None

    def contrast(self, stream: Stream) -> Stream:
        """The null stream with weighted values."""
        return stream.null.perturbed(Perturbation("soft", options=(("step_norm", float(self.step_norm)),)))

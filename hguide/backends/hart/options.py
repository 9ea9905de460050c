"""Options of HART's sampling loop, its accidents among them."""

from __future__ import annotations

from dataclasses import dataclass

from hguide.errors import ConfigError

__all__ = ["HARTOptions"]


@dataclass(frozen=True)
class HARTOptions:
    """How HART makes tokens into a latent map; the accidents of the official loop are on by default.

    Args:
        more_smooth: put a soft mix of codes in place of the drawn code at every step (default of the official demo; for
            pictures, never for measurements).
        maskgit_iterations: calls in which the last scale is predicted; more than one are partial maps.
        residual: add the continuous residual at the last scale; False is the official `final_stage` other than 0.
        unguided_at_one: draw the residual without guidance where the strength is exactly 1.0 (`residual_weights`).
        hold_last: `more_smooth` at the last scale keeps the numbers of the scale before (`progress`). The same accident
            in the guidance is a schedule: `ramp(hold_last=True)`.

    Raises:
        ConfigError: fewer than one iteration.
    """

    more_smooth: bool = False
    maskgit_iterations: int = 1
    residual: bool = True
    unguided_at_one: bool = True
    hold_last: bool = True

    def __post_init__(self) -> None:
        if self.maskgit_iterations < 1:
            raise ConfigError(f"maskgit_iterations is at least 1, got {self.maskgit_iterations}.")

"""Starting from a given picture in place of an all-mask map."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from hguide.backends.vq_diffusion.noise_schedule import NoiseSchedule
from hguide.backends.vq_diffusion.posterior import forward_log_probabilities
from hguide.errors import ConfigError, ShapeError
from hguide.grids import Grid, Step
from hguide.noise import Noise
from hguide.sampling import Candidates, Sampler

__all__ = ["Start"]


@dataclass(frozen=True, eq=False)
class Start:
    """Noise a picture's tokens to q(x_t | x0) and run the rest of the reverse process: variations of a picture.

    Args:
        tokens: of one picture, `(1, h, w)`, as an entry of `generator.encode` gives them; the same for all samples.
        ratio: part of the timesteps that is run, in (0, 1]: the official `filter_ratio`, t = int(T ratio) - 1. Its 0,
            no picture at all, is to give no `Start`.

    Raises:
        ConfigError: a ratio out of range.
        ShapeError: tokens of another shape.
    """

    tokens: Tensor
    ratio: float

    def __post_init__(self) -> None:
        if not 0.0 < self.ratio <= 1.0:
            raise ConfigError(f"Start: ratio is a part of the timesteps in (0, 1], got {self.ratio!r}.")
        if self.tokens.ndim != 3 or len(self.tokens) != 1:
            raise ShapeError(f"Start: tokens are a (1, h, w) map of one picture, got {tuple(self.tokens.shape)}.")

    def to(self, device: torch.device) -> Start:
        """The same start on a device, where a captured run finds it without moving anything."""
        return replace(self, tokens=self.tokens.to(device))

    def timesteps(self, total: int) -> int:
        """Number of timesteps that are run.

        Raises:
            ConfigError: the ratio is too small for even one.
        """
        count = int(total * self.ratio)
        if count < 1:
            raise ConfigError(f"Start: ratio {self.ratio} of {total} timesteps is none; use at least {1 / total:g}.")
        return count

    def noisy(
        self, samples: int, grid: Grid, schedule: NoiseSchedule, noise: Noise, step: Step, device: torch.device
    ) -> Int[Tensor, "b l"]:
        """Tokens x_t, drawn from q(x_t | x0).

        Args:
            samples: b.
            grid: of the model.
            schedule: of the model.
            noise: of the run.
            step: the first of the run.
            device: of the run.

        Raises:
            ShapeError: a map of another size.
        """
        if tuple(self.tokens.shape[1:]) != grid:
            raise ShapeError(
                f"Start: tokens lie on {tuple(self.tokens.shape[1:])}, the model's on {grid}; encode the picture with "
                "the same model."
            )
        given = self.tokens.flatten(1).expand(samples, -1).to(device)
        logs = forward_log_probabilities(given, self.timesteps(schedule.timesteps) - 1, schedule)
        return Sampler().draw(Candidates(logs, None), noise, step, "start")

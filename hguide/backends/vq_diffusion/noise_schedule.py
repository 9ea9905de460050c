"""The mask-and-replace schedule of VQ-Diffusion (arXiv 2111.14822; "alpha1" of its program)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

__all__ = ["NoiseSchedule"]

LEAST, MOST = 0.000009, 0.99999
# Keeps log(1 - 1) finite; of no effect on any other value.
TINY = 1e-40


@dataclass(frozen=True)
class NoiseSchedule:
    """Probabilities of a token to stay (a), to be replaced by any one code (b) and to be masked (c) in a step.

    Cumulative ones, i = 0..T-1: A_i falls linearly from 0.99999 to 0.000009, C_i rises from 0.000009 to 0.99999, and
    B_i = (1 - A_i - C_i) / K. One step: a_i = A_i / A_{i-1}, c_i = 1 - (1 - C_i) / (1 - C_{i-1}),
    b_i = (1 - a_i - c_i) / K. Computed in float64; the logarithms that sampling reads are float32. A + C is 0.999999
    throughout, so replacing has a mass of 1e-6 in all: the process nearly only masks.

    Args:
        timesteps: T, at least 2.
        codes: K.
    """

    timesteps: int
    codes: int

    @cached_property
    def probabilities(self) -> dict[str, Float64[Tensor, " t"]]:
        """`at`, `bt`, `ct` (T) and the cumulative `att`, `btt`, `ctt` (T + 1), whose last entry is "before step 0"."""
        part = torch.arange(self.timesteps, dtype=torch.float64, device="cpu") / (self.timesteps - 1)
        stays = part * (LEAST - MOST) + MOST
        masked = part * (MOST - LEAST) + LEAST
        one, nothing = torch.ones_like(part[:1]), torch.zeros_like(part[:1])
        at = stays / torch.cat([one, stays[:-1]])
        left = 1.0 - torch.cat([nothing, masked])
        ct = 1.0 - left[1:] / left[:-1]
        att, ctt = torch.cat([stays, one]), torch.cat([masked, nothing])
        bt, btt = ((1.0 - a - c) / self.codes for a, c in ((at, ct), (att, ctt)))
        return {"at": at, "bt": bt, "ct": ct, "att": att, "btt": btt, "ctt": ctt}

    @cached_property
    def logarithms(self) -> dict[str, Float[Tensor, " t"]]:
        """Float32, by the names of the official buffers: `log_at`, ..., `log_cumprod_at`, ..., `log_1_min_ct`, ..."""
        p = self.probabilities
        logs = {f"log_{name}": p[name].log() for name in ("at", "bt", "ct")}
        logs |= {f"log_cumprod_{name}": p[name[0] + name[1:] * 2].log() for name in ("at", "bt", "ct")}
        logs |= {f"log_1_min_{name}": (1.0 - logs[f"log_{name}"].exp() + TINY).log() for name in ("ct", "cumprod_ct")}
        return {name: value.float() for name, value in logs.items()}

    def at(self, name: str, index: Int[Tensor, " r"]) -> Float[Tensor, " r"]:
        """Logarithms by their index, on the CPU; -1 is "before step 0"."""
        values = self.logarithms[name]
        return values[index % len(values)]

"""Noise that depends on the seed, the step and the place, and on nothing else.

A draw is a hash of (seed, step, call, purpose, position, channel), computed with 64-bit integer tensor operations:
no generator state, so batch size, order and device do not matter. Integers and uniforms are bit-equal on all devices.
The hash is the SplitMix64 output function (Steele, Lea, Flood 2014) over a key per (seed, step, call, purpose).
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hguide.errors import ConfigError, ShapeError
from hguide.grids import Step
from hguide.kernels import kernels
from hguide.transfer import on_device

__all__ = ["Noise", "RecordedNoise", "SeededNoise"]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_STRETCH = 1 << 15


def _mix(value: int) -> int:
    """SplitMix64 output function on a Python integer."""
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK
    return value ^ (value >> 31)


def _signed(value: int) -> int:
    """The same 64 bits read as a signed integer, which is what torch holds."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift_right_(value: Tensor, bits: int) -> Tensor:
    """Logical shift to the right of a new tensor; torch shifts signed integers arithmetically."""
    return torch.bitwise_right_shift(value, bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix_(value: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """SplitMix64 output function, in place on contiguous int64."""
    for part in _parts(value):
        part.bitwise_xor_(_shift_right_(part, 30)).mul_(_signed(_MIX_1))
        part.bitwise_xor_(_shift_right_(part, 27)).mul_(_signed(_MIX_2))
        part.bitwise_xor_(_shift_right_(part, 31))
    return value


def _unit(bits: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The high 23 bits to the middle of one of 2**23 cells of (0, 1): exact in float32, never 0 or 1."""
    unit = torch.empty(bits.shape, dtype=torch.float32, device=bits.device)
    for part, into in zip(_parts(bits), _parts(unit), strict=True):
        into.copy_(_shift_right_(part, 41)).add_(0.5).mul_(2.0**-23)
    return unit


def _parts(value: Tensor) -> Sequence[Tensor]:
    """All of it, on a CPU in stretches that stay in the cache of a core through several passes."""
    return value.view(-1).split(_STRETCH) if value.device.type == "cpu" else (value,)


def _words(step: Step, purpose: str) -> tuple[int, ...]:
    """What is added to a key, in turn with a mix, to make it one of this draw."""
    return tuple(
        _signed(((word + 1) * _GOLDEN) & _MASK) for word in (step.index, step.call, zlib.crc32(purpose.encode()))
    )


class Noise(ABC):
    """Draws for a batch of samples.

    All methods take the step, a `purpose` (two draws of one step with different purposes are independent), the
    `positions` (a number n for 0..n-1, or `(b, n)` flat positions of a partial map) and, but for `order`, the
    `channels` (a number c for 0..c-1, or `(b, n, c)` token ids), and return float32 `(b, n, c)`.
    """

    @abstractmethod
    def uniform(self, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor) -> Tensor:
        """Uniform in (0, 1)."""

    @abstractmethod
    def normal(self, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor) -> Tensor:
        """Standard normal."""

    @abstractmethod
    def order(self, step: Step, purpose: str, positions: int) -> Int[Tensor, "b n"]:
        """A random order of 0..positions-1 per sample."""

    def exponential(self, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor) -> Tensor:
        """Exponential of rate 1."""
        return self.uniform(step, purpose, positions, channels).log_().neg_()

    def gumbel(self, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor) -> Tensor:
        """Standard Gumbel: -log of an exponential of the same place."""
        return self.exponential(step, purpose, positions, channels).log_().neg_()


class SeededNoise(Noise):
    """Counter-based noise of one seed per sample.

    Args:
        seeds: one non-negative integer below 2**63 per sample of the batch.
        device: where draws are made.

    Attributes:
        keys: `(b,)` hash of each seed, on the device. All draws come from it and from where they are made.

    Raises:
        ConfigError: no seeds, or a seed out of range.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        if not seeds:
            raise ConfigError("noise needs at least one seed, got none.")
        for seed in seeds:
            if not 0 <= seed < 1 << 63:
                raise ConfigError(f"a seed is an integer from 0 to 2**63 - 1, got {seed}.")
        self.seeds = tuple(int(seed) for seed in seeds)
        self.device = torch.device(device)
        self.keys = on_device([_signed(_mix((seed + _GOLDEN) & _MASK)) for seed in self.seeds], self.device)

    def _bits(self, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor) -> Int[Tensor, "b n c"]:
        start = self.keys
        for word in _words(step, purpose):
            start = _mix_(start + word)
        if isinstance(positions, int):
            place = torch.arange(positions, device=self.device)[None, :, None]
        else:
            place = positions.to(self.device, torch.int64)[:, :, None]
        if isinstance(channels, int):
            tokens = torch.arange(channels, device=self.device)[None, None, :]
        else:
            tokens = channels.to(self.device, torch.int64)
        row = place * _signed((_GOLDEN << 32) & _MASK) + start[:, None, None]
        return _mix_((tokens * _signed(_GOLDEN) + row).contiguous())

    def _unit(
        self, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor, logarithms: int
    ) -> Float[Tensor, "b n c"]:
        """u uniform in (0, 1), or after one or two turns of u <- -log u."""
        # One launch in place of forty.
        kernel = kernels("hguide.noise_kernel") if self.device.type == "cuda" else None
        if kernel is not None:
            return kernel.unit(self.keys, _words(step, purpose), positions, channels, logarithms)
        unit = _unit(self._bits(step, purpose, positions, channels))
        for _ in range(logarithms):
            unit.log_().neg_()
        return unit

    def uniform(self, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor) -> Tensor:
        """Uniform in (0, 1) with 23 bits: 24 would round to 1.0 in float32."""
        return self._unit(step, purpose, positions, channels, 0)

    def exponential(self, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor) -> Tensor:
        """Exponential of rate 1: -log of the uniform of the same place."""
        return self._unit(step, purpose, positions, channels, 1)

    def gumbel(self, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor) -> Tensor:
        """Standard Gumbel: -log of the exponential of the same place."""
        return self._unit(step, purpose, positions, channels, 2)

    def normal(self, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor) -> Tensor:
        """Standard normal by Box and Muller, from the high and the low 23 bits of one hash."""
        bits = self._bits(step, purpose, positions, channels)
        radius = _unit(bits).log_().mul_(-2.0).sqrt_()
        angle = _unit(bits.bitwise_left_shift_(41)).mul_(2.0 * math.pi).cos_()
        return radius.mul_(angle)

    def order(self, step: Step, purpose: str, positions: int) -> Int[Tensor, "b n"]:
        """A random order per sample: the positions sorted by their hashes."""
        return self._bits(step, purpose, positions, 1)[:, :, 0].argsort(dim=1, stable=True)


class RecordedNoise(Noise):
    """Replays recorded draws.

    Args:
        draws: recorded tensors by `(kind, index, call, purpose)`, `kind` being the method's name ("gumbel",
            "exponential", ...). Where another method derives from a recorded one (gumbel from exponential), the
            recorded one is used. Draws are over all channels, and looked up where a method is asked for token ids.

    Raises:
        ShapeError: a draw was not recorded, or has other positions or channels than asked for.
    """

    def __init__(self, draws: Mapping[tuple[str, int, int, str], Tensor]) -> None:
        self.draws = dict(draws)

    def _draw(
        self, kind: str, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor | None
    ) -> Tensor:
        key = (kind, step.index, step.call, purpose)
        if key not in self.draws:
            recorded = ", ".join(map(str, sorted(self.draws))) or "nothing"
            raise ShapeError(f"no recorded draw for {key}; recorded: {recorded}.")
        draw = self.draws[key]
        count = positions if isinstance(positions, int) else positions.shape[1]
        if draw.shape[1] != count:
            raise ShapeError(f"recorded draw {key} has {draw.shape[1]} positions, asked for {count}.")
        if channels is None:
            return draw
        if isinstance(channels, Tensor):
            return draw.gather(2, channels)
        if draw.shape[2] != channels:
            raise ShapeError(f"recorded draw {key} has {draw.shape[2]} channels, asked for {channels}.")
        return draw.clone()

    def uniform(self, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor) -> Tensor:
        """The recorded uniforms."""
        return self._draw("uniform", step, purpose, positions, channels)

    def exponential(self, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor) -> Tensor:
        """The recorded exponentials, or those of recorded uniforms."""
        if ("exponential", step.index, step.call, purpose) in self.draws:
            return self._draw("exponential", step, purpose, positions, channels)
        return super().exponential(step, purpose, positions, channels)

    def gumbel(self, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor) -> Tensor:
        """The recorded Gumbels, or those of recorded exponentials or uniforms."""
        if ("gumbel", step.index, step.call, purpose) in self.draws:
            return self._draw("gumbel", step, purpose, positions, channels)
        return super().gumbel(step, purpose, positions, channels)

    def normal(self, step: Step, purpose: str, positions: int | Tensor, channels: int | Tensor) -> Tensor:
        """The recorded normals."""
        return self._draw("normal", step, purpose, positions, channels)

    def order(self, step: Step, purpose: str, positions: int) -> Int[Tensor, "b n"]:
        """The recorded order."""
        return self._draw("order", step, purpose, positions, None)

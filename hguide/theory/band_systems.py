"""Enumerated systems of a picture x, its low and high band, and a token z."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from hguide.errors import ConfigError
from hguide.priors.dct import dct_lowpass
from hguide.theory.discrete_systems import DiscreteSystem

__all__ = ["band_states", "coupled_bands", "filtered_signals", "noisy_channel", "signals", "token_channel"]


def signals(values: Sequence[float], size: int) -> Float64[Tensor, "states size"]:
    """All signals of `size` pixels, each with one of these values."""
    return torch.tensor(list(itertools.product(values, repeat=size)), dtype=torch.float64, device="cpu")


def band_states(values: Float64[Tensor, "states size"]) -> Int64[Tensor, " states"]:
    """Which of the distinct rows each row is, from 0; rows within 1e-6 are one, so that rounding makes no states."""
    return torch.unique((values * 1e6).round(), dim=0, return_inverse=True)[1]


def filtered_signals(values: Sequence[float], size: int, kept: int, coupling: float = 0.0) -> DiscreteSystem:
    """Signals x with their bands: low = L x and high = H x, L the DCT low-pass of the priors, H = I - L.

    p(x) ~ exp(-coupling sum_i (x_i - x_{i+1})^2): the larger the coupling, the smoother the signals.

    With whole numbers as values and one frequency kept, many signals share a low band. With more frequencies the low
    band tells nearly all signals apart: see `hguide.theory.information_bottleneck.detail_left`.

    Args:
        values: of a pixel.
        size: pixels.
        kept: orthonormal DCT frequencies in the low band, of `size`.
        coupling: of neighbours; 0 makes the pixels independent and uniform.

    Returns:
        The system of "x", "low" and "high"; the bands are functions of x, and together determine it.
    """
    all_signals = signals(values, size)
    low = all_signals @ dct_lowpass(size, kept)
    weights = (-coupling * all_signals.diff(dim=1).square().sum(1)).softmax(0)
    system = DiscreteSystem(("x",), weights)
    return system.with_map("low", "x", band_states(low)).with_map("high", "x", band_states(all_signals - low))


def token_channel(
    values: Float64[Tensor, "states size"], codebook: Float64[Tensor, "tokens size"], noise: float
) -> Float64[Tensor, "states tokens"]:
    """p(z | x) ~ exp(-|x - c_z|^2 / (2 noise^2)): a soft choice of the nearest code.

    Raises:
        ConfigError: noise is not positive.
    """
    if not noise > 0.0:
        raise ConfigError(f"the noise of a token is positive, got {noise!r}.")
    return (-torch.cdist(values, codebook).square() / (2.0 * noise * noise)).softmax(1)


def noisy_channel(states: int, noise: float) -> Float64[Tensor, "states states"]:
    """p(y | x) = (1 - noise) [y = x] + noise / states."""
    same = torch.eye(states, dtype=torch.float64, device="cpu")
    return (1.0 - noise) * same + noise / states


def coupled_bands(dependence: float, token: str, states: int = 3, noise: float = 0.2) -> DiscreteSystem:
    """Two bands of `states` values with p(low, high) = (1 - d) / states^2 + d [low = high] / states, and a token.

    The picture is the pair, so that bands and picture determine each other. Both bands are uniform at every d, and
    independent at d = 0.

    Args:
        dependence: d in [0, 1].
        token: "separate", z = (low, high), each read with noise of its own; "sum", z = (low + high) mod states with
            noise, which tells nothing of either band alone where they are independent; "low", z = low with noise.
        states: of each band.
        noise: see `noisy_channel`.

    Returns:
        The system of "low", "high", "x" and "z".

    Raises:
        ConfigError: an unknown token.
    """
    uniform = torch.full((states, states), 1.0 / states**2, dtype=torch.float64, device="cpu")
    same = torch.eye(states, dtype=torch.float64, device="cpu") / states
    pair = torch.arange(states * states, device="cpu").reshape(states, states)
    low, high = pair // states, pair % states
    system = DiscreteSystem(("low", "high"), (1.0 - dependence) * uniform + dependence * same)
    system = system.with_map("x", ("low", "high"), pair)
    reading = noisy_channel(states, noise)
    if token == "separate":
        both = reading[low][..., :, None] * reading[high][..., None, :]
        return system.with_channel("z", ("low", "high"), both.flatten(2))
    if token == "sum":
        return system.with_channel("z", ("low", "high"), reading[(low + high) % states])
    if token == "low":
        return system.with_channel("z", ("low", "high"), reading[low])
    raise ConfigError(f"token is 'separate', 'sum' or 'low', got {token!r}.")

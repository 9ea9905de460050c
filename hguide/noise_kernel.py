"""The hash of `hguide.noise` as one CUDA kernel: key, place and token in, a number in (0, 1) or its logarithms out.

Imported where it runs alone, since it needs Triton. The operations are those of `SeededNoise`, which is its oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["trial", "unit"]

_WIDEST = 1024


@triton.jit
@no_type_check
def _mix(x):
    """SplitMix64 output function."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit(do_not_specialize=["word_0", "word_1", "word_2"])
@no_type_check
def _draw(
    keys,
    places,
    tokens,
    out,
    word_0,
    word_1,
    word_2,
    positions,
    channels,
    GIVEN_PLACES: tl.constexpr,
    GIVEN_TOKENS: tl.constexpr,
    LOGARITHMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One stretch of the tokens of one position of one sample."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < channels
    key = tl.load(keys + row // positions).to(tl.uint64)
    key = _mix(key + word_0.to(tl.uint64))
    key = _mix(key + word_1.to(tl.uint64))
    key = _mix(key + word_2.to(tl.uint64))
    place = row % positions
    if GIVEN_PLACES:
        place = tl.load(places + row)
    token = columns.to(tl.int64)
    if GIVEN_TOKENS:
        token = tl.load(tokens + row * channels + columns, mask=inside, other=0)
    bits = key + place.to(tl.uint64) * 0x7F4A7C1500000000
    bits = _mix(bits + token.to(tl.uint64) * 0x9E3779B97F4A7C15)
    unit = ((bits >> 41).to(tl.int32).to(tl.float32) + 0.5) * (1.0 / 8388608.0)
    for _ in tl.static_range(LOGARITHMS):
        unit = -tl.log(unit)
    tl.store(out + row * channels + columns, unit, mask=inside)


def unit(
    keys: Int[Tensor, " b"],
    words: Sequence[int],
    positions: int | Int[Tensor, "b n"],
    channels: int | Int[Tensor, "b n c"],
    logarithms: int,
) -> Float[Tensor, "b n c"]:
    """u uniform in (0, 1), or after turns of u <- -log u.

    Args:
        keys: first key of each sample.
        words: three numbers of 64 bits, signed, that make them the keys of one draw.
        positions: a number n for 0..n-1, or flat positions.
        channels: a number c for 0..c-1, or token ids.
        logarithms: turns.

    Returns:
        float32.
    """
    rows = positions if isinstance(positions, int) else positions.shape[1]
    width = channels if isinstance(channels, int) else channels.shape[2]
    places = tokens = keys
    if isinstance(positions, Tensor):
        places = positions.to(keys.device, torch.int64).expand(len(keys), rows).contiguous()
    if isinstance(channels, Tensor):
        tokens = channels.to(keys.device, torch.int64).expand(len(keys), rows, width).contiguous()
    out = torch.empty(len(keys), rows, width, dtype=torch.float32, device=keys.device)
    if out.numel():
        block = min(_WIDEST, triton.next_power_of_2(width))
        with torch.cuda.device_of(keys):
            _draw[len(keys) * rows, triton.cdiv(width, block)](
                keys,
                places,
                tokens,
                out,
                *words,
                rows,
                width,
                GIVEN_PLACES=isinstance(positions, Tensor),
                GIVEN_TOKENS=isinstance(channels, Tensor),
                LOGARITHMS=logarithms,
                BLOCK=block,
            )
    return out


def trial() -> None:
    """Draw one number."""
    unit(torch.zeros(1, dtype=torch.int64, device="cuda"), (0, 0, 0), 1, 1, 0)

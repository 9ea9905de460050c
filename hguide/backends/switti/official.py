"""Settings of the official Switti program."""

from __future__ import annotations

from hguide.sampling import Sampler

__all__ = ["official_guidance", "official_sampler"]

OFFICIAL_CFG = 6.0
"""Strength of the official program."""


def official_guidance(
    count: int, strength: float = OFFICIAL_CFG, *, on_from: int = 0, off_from: int | None = None
) -> str:
    """Classifier-free guidance as the official loop applies it: VAR's ramp, between two scales.

    Behind them the null stream is no longer computed. Put SSG behind it with `|`.

    Args:
        count: number of scales of the generator.
        strength: s of t = s k/(K-1).
        on_from: first scale with guidance (`turn_on_cfg_start_si`).
        off_from: first scale again without guidance (`turn_off_cfg_start_si`; 11 of 14 in the official example at 1024
            pixels); None for none.

    >>> official_guidance(14, off_from=11)
    'cfg(6, stop=0.821)'
    >>> official_guidance(10)
    'cfg(6)'
    >>> official_guidance(10, on_from=2, off_from=8)
    'cfg(6, start=0.250, stop=0.850)'
    """
    # On where int(start * count) <= k < int(stop * count): the middle of the step is safe from rounding.
    start = f", start={(on_from + 0.5) / count:.3f}" if on_from > 0 else ""
    stop = "" if off_from is None or off_from >= count else f", stop={(off_from + 0.5) / count:.3f}"
    return f"cfg({strength:g}{start}{stop})"


def official_sampler(
    count: int, *, top_k: int = 400, top_p: float = 0.95, off_from: int | None = None, last_temperature: float = 1.0
) -> Sampler:
    """Top-k and top-p of the official program, and its temperature at the scales without guidance.

    Args:
        count: number of scales of the generator.
        top_k: most probable tokens kept.
        top_p: probability mass kept.
        off_from: see `official_guidance`.
        last_temperature: of the scales from there on (`last_scale_temp`; 0.1 in the official example).
    """
    last = count if off_from is None else off_from
    temperature = tuple(1.0 if k < last else last_temperature for k in range(count))
    return Sampler(temperature=temperature, top_k=top_k, top_p=top_p)

"""Settings of the official HART programs."""

from __future__ import annotations

from hguide.sampling import Sampler

__all__ = ["OFFICIAL_CFG", "official_guidance", "official_sampler"]

OFFICIAL_CFG = 4.5
"""Strength of the official demo; the function's own default is 1.5."""

_FEWER_FROM = 7


def official_guidance(strength: float = OFFICIAL_CFG) -> str:
    """Classifier-free guidance as the official loop applies it, the last scale keeping the strength before it.

    >>> official_guidance()
    'cfg(4.5, schedule=ramp(hold_last=true))'
    """
    return f"cfg({strength:g}, schedule=ramp(hold_last=true))"


def official_sampler(count: int, top_p: float = 0.0) -> Sampler:
    """Top-k 600 at scales 0 to 6, then 300: fixed in the official loop, whatever its argument says.

    Args:
        count: number of scales of the generator.
        top_p: probability mass kept after that; 0 keeps all.
    """
    return Sampler(top_k=tuple(600 if k < _FEWER_FROM else 300 for k in range(count)), top_p=top_p)

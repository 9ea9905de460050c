"""The schedule of a published model as its users give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hguide.errors import ConfigError

__all__ = ["checked_patch_nums"]


def checked_patch_nums(given: Any) -> tuple[int, ...] | None:
    """The side of each scale's map; None where none is given.

    Args:
        given: by a caller of `load`.

    Raises:
        ConfigError: anything but whole numbers from 1.
    """
    if given is None:
        return None
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    if not listed or not given or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in given):
        raise ConfigError(f"patch_nums is the side of each scale's map, for instance (1, 2, 3, 4); got {given!r}.")
    return tuple(given)

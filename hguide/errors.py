"""The errors of hguide. Each message says what was asked, what was given and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigError",
    "HGuideError",
    "NumericalError",
    "ParseError",
    "RegistryError",
    "ShapeError",
    "StreamError",
    "near_matches",
]


class HGuideError(Exception):
    """Base of all errors raised on purpose by hguide."""


class ConfigError(HGuideError, ValueError):
    """An option has a value that cannot work."""


class ShapeError(HGuideError, ValueError):
    """A tensor does not have the shape that was asked for."""


class RegistryError(HGuideError, LookupError):
    """A name is unknown, taken twice, or names something of another kind."""


class ParseError(HGuideError, ValueError):
    """A guidance text cannot be read; the message points at the character."""


class StreamError(HGuideError, ValueError):
    """A guidance asks for a stream, model or map that the generator does not serve."""


class CheckpointError(HGuideError, ValueError):
    """A file holds no usable weights: missing, damaged, hostile, or with other keys or shapes."""


class NumericalError(HGuideError, ArithmeticError):
    """Logits, weights or measures are not finite."""


def near_matches(name: str, known: Iterable[str]) -> str:
    """The tail of an 'unknown name' message: near matches, whatever their case, then the whole list.

    >>> near_matches("SSG", ["ssg", "cfg"])
    "did you mean 'ssg'? Known: cfg, ssg."
    """
    names = sorted(known)
    folded = difflib.get_close_matches(name.casefold(), {each.casefold() for each in names}, n=3, cutoff=0.5)
    near = [each for match in folded for each in names if each.casefold() == match][:3]
    hint = f"did you mean {', '.join(map(repr, near))}? " if near else ""
    return f"{hint}Known: {', '.join(names) if names else 'none'}."

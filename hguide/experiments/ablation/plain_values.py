"""What values of a YAML file are: numbers, lists of them, entries of a list; and how JSON holds them."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["is_listed", "is_number", "is_numbers", "is_whole", "plain"]


def is_whole(value: Any) -> bool:
    """A whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """A finite number."""
    # A comparison, because math.isfinite refuses whole numbers that no float can hold.
    right = isinstance(value, int | float) and not isinstance(value, bool)
    return right and -sys.float_info.max <= value <= sys.float_info.max


def is_numbers(value: Any) -> bool:
    """A list of numbers, not empty."""
    return isinstance(value, list) and bool(value) and all(map(is_number, value))


def is_listed(value: Any) -> bool:
    """A whole number, a text, or a list of such, not empty."""
    entries = value if isinstance(value, list) else [value]
    return bool(entries) and all(is_whole(each) or isinstance(each, str) for each in entries)


def plain(value: Any) -> Any:
    """As JSON can hold it: what is no number, text, list or mapping (a date, an infinity) as text."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value if value is None or isinstance(value, str | bool) or is_number(value) else str(value)

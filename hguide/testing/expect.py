"""How a contract suite fails."""

from __future__ import annotations

__all__ = ["expect"]


def expect(met: bool, message: str) -> None:
    """Raise AssertionError with `message` unless `met`; unlike `assert`, also under `python -O`."""
    if not met:
        raise AssertionError(message)

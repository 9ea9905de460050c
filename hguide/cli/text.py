"""Text on pictures, in the font that comes with PIL."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

__all__ = ["INK", "MUTED", "PAPER", "draw_lines", "fitting", "line_height", "text_width", "wrapped"]

PAPER, INK, MUTED = (255, 255, 255), (20, 20, 20), (110, 110, 110)


@lru_cache(maxsize=32)
def font(size: int) -> Any:
    """The font of a size in pixels."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Width of one line in pixels."""
    left, _, right, _ = font(size).getbbox(text)
    return int(right - left) + 1


def line_height(size: int) -> int:
    """Distance of two lines."""
    return round(size * 1.3)


def fitting(text: str, width: int, size: int, smallest: int = 9) -> tuple[str, int]:
    """The text and the largest size up to `size` at which it fits; shortened where even the smallest is too wide."""
    for tried in range(size, smallest - 1, -1):
        if text_width(text, tried) <= width:
            return text, tried
    while len(text) > 1 and text_width(text + "...", smallest) > width:
        text = text[:-1]
    return text + "...", smallest


def wrapped(text: str, width: int, size: int) -> list[str]:
    """The text in lines no wider than `width`, broken between words."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [fitting(line, width, size, size)[0] for line in lines]


def draw_lines(canvas: Any, at: tuple[int, int], lines: Sequence[tuple[str, int, tuple[int, int, int]]]) -> None:
    """Draw lines of (text, size, colour) below each other, the first one's top left at `at`."""
    x, y = at
    for text, size, colour in lines:
        canvas.text((x, y), text, fill=colour, font=font(size))
        y += line_height(size)

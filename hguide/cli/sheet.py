"""A labelled sheet of pictures: rows are guidances, columns are classes and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from hguide.cli.text import INK, MUTED, PAPER, draw_lines, fitting, line_height, text_width, wrapped

__all__ = ["Row", "enlarged", "labelled_sheet", "zoom_of"]

CELL, GAP, MARGIN, LABEL = 128, 6, 14, 190
TITLE_SIZE, LABEL_SIZE, NOTE_SIZE = 20, 16, 13


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a sheet.

    Attributes:
        label: what the row is, wrapped where it is long.
        notes: lines in small type under the label.
        pictures: `(n, H, W, 3)` bytes, one per column.
    """

    label: str
    notes: tuple[str, ...]
    pictures: UInt8[np.ndarray, "n H W 3"]


def zoom_of(height: int) -> int:
    """By how much pictures of a height are enlarged, so that they are about 128 pixels high."""
    return max(1, round(CELL / height))


def enlarged(pictures: UInt8[np.ndarray, "n h w 3"], zoom: int) -> UInt8[np.ndarray, "n H W 3"]:
    """Each pixel as a square of zoom x zoom."""
    return pictures.repeat(zoom, axis=1).repeat(zoom, axis=2)


def labelled_sheet(
    title: str, subtitle: str, rows: Sequence[Row], columns: Sequence[str], across: int = 11
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the sheet, in bands of at most `across` columns below each other.

    Args:
        title: heading.
        subtitle: second line, small.
        rows: the same in every band.
        columns: name of each column; a second line after a newline is set in small type.
        across: columns of a band.
    """
    from PIL import Image, ImageDraw

    zoom = zoom_of(rows[0].pictures.shape[1])
    cells = [enlarged(row.pictures, zoom) for row in rows]
    height, width = cells[0].shape[1:3]
    bands = _even_bands(len(columns), across)
    heading = MARGIN + line_height(TITLE_SIZE) + line_height(NOTE_SIZE)
    small_line = line_height(NOTE_SIZE) if any("\n" in name for name in columns) else 0
    column_head = line_height(LABEL_SIZE) + small_line + GAP
    row_height = max(height, *(_label_height(row) for row in rows)) + GAP
    band_height = column_head + len(rows) * row_height + MARGIN
    content = LABEL + max(map(len, bands)) * (width + GAP)
    full = max(content, text_width(title, TITLE_SIZE), text_width(subtitle, NOTE_SIZE)) + 2 * MARGIN
    sheet = Image.new("RGB", (full, heading + len(bands) * band_height + MARGIN // 2), PAPER)
    canvas = ImageDraw.Draw(sheet)
    draw_lines(canvas, (MARGIN, MARGIN // 2), [(title, TITLE_SIZE, INK), (subtitle, NOTE_SIZE, MUTED)])
    for number, band in enumerate(bands):
        top = heading + number * band_height
        for place, column in enumerate(band):
            left = MARGIN + LABEL + place * (width + GAP)
            _column_name(canvas, columns[column], left, width, top)
            for index in range(len(rows)):
                y = top + column_head + index * row_height
                sheet.paste(Image.fromarray(cells[index][column]), (left, y))
        for index, row in enumerate(rows):
            y = top + column_head + index * row_height
            draw_lines(canvas, (MARGIN, y), _label_lines(row))
    return np.asarray(sheet)


def _column_name(canvas: Any, name: str, left: int, width: int, top: int) -> None:
    first, _, second = name.partition("\n")
    for text, largest, colour, y in (
        (first, LABEL_SIZE, INK, top),
        (second, NOTE_SIZE, MUTED, top + line_height(LABEL_SIZE)),
    ):
        shown, size = fitting(text, width - GAP, largest)
        draw_lines(canvas, (left + (width - text_width(shown, size)) // 2, y + largest - size), [(shown, size, colour)])


def _label_lines(row: Row) -> list[tuple[str, int, tuple[int, int, int]]]:
    label = [(line, LABEL_SIZE, INK) for line in wrapped(row.label, LABEL - GAP, LABEL_SIZE)]
    return label + [(line, NOTE_SIZE, MUTED) for note in row.notes for line in wrapped(note, LABEL - GAP, NOTE_SIZE)]


def _label_height(row: Row) -> int:
    return sum(line_height(size) for _, size, _ in _label_lines(row))


def _even_bands(count: int, across: int) -> list[range]:
    """The columns in as few bands as possible, all of about the same length."""
    bands = -(-count // across)
    each = -(-count // bands)
    return [range(first, min(first + each, count)) for first in range(0, count, each)]

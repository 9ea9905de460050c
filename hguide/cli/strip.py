"""A strip: one image growing over the scales, with the energy of the semantic residual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from hguide.cli.residual import StepTrace
from hguide.cli.sheet import GAP, LABEL, LABEL_SIZE, MARGIN, NOTE_SIZE, TITLE_SIZE, enlarged, zoom_of
from hguide.cli.text import INK, MUTED, PAPER, draw_lines, fitting, line_height, text_width, wrapped

__all__ = ["heat_colours", "strip"]

BAR, BAR_COLOUR = 90, (196, 78, 48)
STOPS = np.array([(0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)], float)


def heat_colours(values: Float[np.ndarray, "h w"], largest: float) -> UInt8[np.ndarray, "h w 3"]:
    """Colours from black over purple and orange (0) to pale yellow (`largest`)."""
    place = np.clip(values / max(largest, 1e-30), 0.0, 1.0) * (len(STOPS) - 1)
    lower = np.minimum(place.astype(int), len(STOPS) - 2)
    part = (place - lower)[..., None]
    return np.round(STOPS[lower] * (1 - part) + STOPS[lower + 1] * part).astype(np.uint8)


def strip(title: str, subtitle: str, steps: Sequence[StepTrace]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the strip: per step the picture so far, the residual's energy per token, a bar and the numbers."""
    from PIL import Image, ImageDraw

    side, width = (zoom_of(steps[0].picture.shape[0]) * n for n in steps[0].picture.shape[:2])
    heading = MARGIN + line_height(TITLE_SIZE) + line_height(NOTE_SIZE)
    pictures = heading + line_height(LABEL_SIZE) + GAP
    heats = pictures + side + GAP
    bars = heats + side + 2 * GAP
    numbers = bars + BAR + GAP
    content = LABEL + len(steps) * (width + GAP)
    full = max(content, text_width(title, TITLE_SIZE), text_width(subtitle, NOTE_SIZE)) + 2 * MARGIN
    sheet = Image.new("RGB", (full, numbers + 2 * line_height(NOTE_SIZE) + MARGIN), PAPER)
    canvas = ImageDraw.Draw(sheet)
    draw_lines(canvas, (MARGIN, MARGIN // 2), [(title, TITLE_SIZE, INK), (subtitle, NOTE_SIZE, MUTED)])
    for top, label, note in (
        (pictures, "the image so far", "decoded after each scale"),
        (heats, "semantic residual", "energy of each token; each map has its own range"),
        (bars, "mean energy", "of |l - P l'| squared per token, and relative to |l| squared"),
    ):
        lines = [
            (label, LABEL_SIZE, INK),
            *((line, NOTE_SIZE, MUTED) for line in wrapped(note, LABEL - GAP, NOTE_SIZE)),
        ]
        draw_lines(canvas, (MARGIN, top), lines)
    most = max((step.energy for step in steps if step.energy is not None), default=1.0)
    for place, step in enumerate(steps):
        left = MARGIN + LABEL + place * (width + GAP)
        _centred(canvas, left, width, heading, f"{step.grid[0]} x {step.grid[1]}", LABEL_SIZE, INK)
        sheet.paste(Image.fromarray(enlarged(step.picture[None], zoom_of(step.picture.shape[0]))[0]), (left, pictures))
        if step.heat is None or step.energy is None or step.share is None:
            canvas.rectangle((left, heats, left + width - 1, heats + side - 1), outline=MUTED)
            _centred(canvas, left, width, heats + side // 2 - NOTE_SIZE, "no map before", NOTE_SIZE, MUTED)
            continue
        colours = Image.fromarray(heat_colours(step.heat, float(step.heat.max())))
        sheet.paste(colours.resize((width, side), Image.Resampling.NEAREST), (left, heats))
        height = max(1, round(BAR * step.energy / max(most, 1e-30)))
        canvas.rectangle((left + width // 4, bars + BAR - height, left + 3 * width // 4, bars + BAR), fill=BAR_COLOUR)
        _centred(canvas, left, width, numbers, f"{step.energy:.4g}", NOTE_SIZE, INK)
        _centred(canvas, left, width, numbers + line_height(NOTE_SIZE), f"{100 * step.share:.0f} %", NOTE_SIZE, MUTED)
    return np.asarray(sheet)


def _centred(canvas: Any, left: int, width: int, top: int, text: str, size: int, colour: tuple[int, int, int]) -> None:
    text, size = fitting(text, width, size)
    draw_lines(canvas, (left + (width - text_width(text, size)) // 2, top), [(text, size, colour)])

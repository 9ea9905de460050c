"""What all figures of a trace share: drawn without pyplot, written as PNG and SVG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hguide.images import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["INK", "LINES", "MUTED", "STYLE", "empty", "new_figure", "write_figure"]

INK, MUTED = "#1a1a1a", "#707070"
LINES = ("#0b5fa5", "#c44e30", "#3d8b57", "#7a5195")
STYLE: dict[Any, Any] = {"font.size": 9, "axes.titlesize": 10, "svg.hashsalt": "hguide", "svg.fonttype": "none"}


def new_figure(width: float, height: float) -> Figure:
    """A white figure of a size in inches, which belongs to no window and no global list."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white", layout="constrained")


def empty(axes: Axes, reason: str) -> None:
    """A panel that has nothing to show, and why."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("#d0d0d0")
    axes.text(0.5, 0.5, reason, ha="center", va="center", color=MUTED, wrap=True, transform=axes.transAxes)


def write_figure(figure: Figure, stem: Path, dpi: int = 150) -> list[Path]:
    """Write `stem.png` and `stem.svg`; the SVG holds its text as text and no date, so that it repeats.

    Args:
        figure: drawn.
        stem: path without the ending.
        dpi: of the PNG.

    Returns:
        The two paths.
    """
    import matplotlib

    written = []
    kinds: list[tuple[str, dict[str, Any]]] = [("png", {"dpi": dpi}), ("svg", {"metadata": {"Date": None}})]
    with matplotlib.rc_context(STYLE):
        for kind, options in kinds:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, **options)
            path = stem.with_name(f"{stem.name}.{kind}")
            write_bytes(path, buffer.getvalue())
            written.append(path)
    return written

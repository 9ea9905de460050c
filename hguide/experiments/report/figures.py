"""All figures of a report, as PNG and SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hguide.errors import ConfigError
from hguide.experiments.ablation.results import Results
from hguide.experiments.report.cost_figure import cost_figure
from hguide.experiments.report.figure_style import styled
from hguide.experiments.report.pareto_figure import measure_of, pareto_figure
from hguide.experiments.report.series import SWEPT
from hguide.experiments.report.spectra_figure import spectra_figure
from hguide.experiments.report.sweep_figure import sweep_figure
from hguide.images import write_bytes

__all__ = ["FigureFile", "figure_files", "figures", "write_figures"]

DPI = 160


@dataclass(frozen=True)
class FigureFile:
    """A figure as bytes.

    Attributes:
        name: of its files, without the ending.
        title: heading.
        text: what it shows, for captions and for readers who cannot see it.
        png: for slides.
        svg: for pages and print.
    """

    name: str
    title: str
    text: str
    png: bytes
    svg: bytes


TITLES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "pareto": (
            "Distance against score",
            "One point per cell with its 95 % intervals, named by its letter in the table. Lines join the cells of a "
            "sweep. The grey steps are the front: cells that no other beats in both measures. Dotted: real images, "
            "where they are near.",
        ),
        "spectra": (
            "Power spectra",
            "Radial power of the luminance of generated pictures over that of real ones; 1 at every frequency is best, "
            "above 1 is too much, below 1 too little. The baseline is black.",
        ),
        "sweep_strength": (
            "Strength",
            "Every measure along the strength of the guidance; bands are 95 % intervals, arrows say where better is.",
        ),
        "sweep_temperature": (
            "Temperature",
            "Every measure along the temperature; bands are 95 % intervals, arrows say where better is.",
        ),
        "costs": (
            "Time and memory",
            "Mean time of sampling and decoding an image, with the steps of a run and the streams of a step, and peak "
            "memory where the device tells it.",
        ),
    }
)
"""Figure -> title and what it shows."""


def figures(results: Results) -> dict[str, Any]:
    """The figures that these results have, by name."""
    distance = next((key for key in ("kd", "fd", "kd_squeezenet") if measure_of(results, key)), "kd")
    score = next((key for key in ("accuracy", "score") if measure_of(results, key)), "accuracy")
    drawn = {
        "pareto": pareto_figure(results, [(distance, score), ("recall", "precision")]),
        "spectra": spectra_figure(results),
        **{f"sweep_{axis}": sweep_figure(results, axis) for axis in SWEPT},
        "costs": cost_figure(results),
    }
    return {name: each for name, each in drawn.items() if each is not None}


def figure_files(results: Results) -> tuple[FigureFile, ...]:
    """The figures as bytes; equal results give equal bytes."""
    with styled():
        return tuple(
            FigureFile(name, *TITLES[name], _saved(each, "png"), _saved(each, "svg"))
            for name, each in figures(results).items()
        )


def write_figures(files: tuple[FigureFile, ...], folder: Path) -> list[Path]:
    """One PNG and one SVG per figure.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {folder}: {error.strerror or error}.") from error
    paths = []
    for each in files:
        for ending, content in (("png", each.png), ("svg", each.svg)):
            paths.append(folder / f"{each.name}.{ending}")
            write_bytes(paths[-1], content)
    return paths


def _saved(figure: Any, ending: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if ending == "svg" else {"Software": None}
    figure.savefig(buffer, format=ending, dpi=DPI, metadata=metadata)
    return buffer.getvalue()

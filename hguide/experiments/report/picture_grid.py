"""The same seeds under every cell, as pictures small enough to travel inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from hguide.errors import ConfigError, HGuideError
from hguide.experiments.ablation.results import Results

__all__ = ["BUDGET", "Images", "PictureGrid", "picture_grid"]

BUDGET = 4_000_000
LARGEST, FEWEST, QUALITY = 256, 8, 88


@runtime_checkable
class Images(Protocol):
    """Where the pictures are: `hguide.experiments.ablation.store.Store`."""

    def image(self, cell_hash: str, seed: int) -> UInt8[np.ndarray, "H W 3"]:
        """The picture of a seed; an `HGuideError` where there is none."""


@dataclass(frozen=True)
class PictureGrid:
    """Rows are cells, columns are seeds.

    Attributes:
        seeds: of the columns.
        names: class of each seed; empty where it is not known.
        rows: for each cell of the results and each seed the picture as a data URI, or None where there is none.
        size: height and width of the pictures in the page.
        note: what was done to them: how many of how many seeds, made smaller, compressed.
    """

    seeds: tuple[int, ...]
    names: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    size: tuple[int, int]
    note: str


def picture_grid(results: Results, images: Images, most: int = 21, budget: int = BUDGET) -> PictureGrid | None:
    """The pictures of the first seeds, as many columns as the budget allows.

    Without loss (PNG) where at least `FEWEST` columns fit, else as JPEG; sides above `LARGEST` pixels are halved until
    they are not.

    Args:
        results: cells and seeds.
        images: where the pictures are.
        most: columns at most.
        budget: bytes of all pictures, as written in the page.

    Returns:
        The grid, or None where no picture is there.

    Raises:
        ConfigError: `most` is no positive number.
    """
    if most < 1:
        raise ConfigError(f"the report shows at least 1 seed, got {most}.")
    first, count = int(results.seeds.get("first", 0)), int(results.seeds.get("count", 0))
    cells = [each.hash for each in results.cells]
    seeds = list(results.seeds.get("listed", range(first, first + count)))[:most]
    original = next(
        (each.shape[:2] for seed in seeds for each in _column(images, cells, seed) if each is not None), None
    )
    if original is None:
        return None
    size, form = _smaller(original), "PNG"
    columns = _within(images, cells, seeds, size, budget, form)
    if len(columns) < min(FEWEST, len(seeds)):
        form = "JPEG"
        columns = _within(images, cells, seeds, size, budget, form)
    rows = tuple(tuple(column[place] for column in columns.values()) for place in range(len(cells)))
    note = f"{len(columns)} of {count} seeds, {'without loss' if form == 'PNG' else 'compressed (JPEG) for this page'}"
    if size != original:
        note += f", reduced from {original[1]} × {original[0]} to {size[1]} × {size[0]} pixels"
    return PictureGrid(tuple(columns), tuple(_class_of(results, seed) for seed in columns), rows, size, f"{note}.")


def _picture(images: Images, cell: str, seed: int) -> UInt8[np.ndarray, "H W 3"] | None:
    try:
        return images.image(cell, seed)
    except HGuideError:
        # Not run yet, failed before, or damaged: the page shows an empty place.
        return None


def _column(images: Images, cells: Sequence[str], seed: int) -> Iterator[UInt8[np.ndarray, "H W 3"] | None]:
    return (_picture(images, cell, seed) for cell in cells)


def _smaller(size: tuple[int, ...]) -> tuple[int, int]:
    height, width = size
    while max(height, width) > LARGEST:
        height, width = max(1, height // 2), max(1, width // 2)
    return height, width


def _within(
    images: Images, cells: Sequence[str], seeds: Sequence[int], size: tuple[int, int], budget: int, form: str
) -> dict[int, list[str | None]]:
    """Seed -> its column as data URIs, until the budget is spent, one at least; seeds without pictures are left out."""
    found: dict[int, list[str | None]] = {}
    spent = 0
    for seed in seeds:
        encoded = [None if each is None else _data_uri(each, size, form) for each in _column(images, cells, seed)]
        spent += sum(len(each) for each in encoded if each is not None)
        if found and spent > budget:
            break
        if any(encoded):
            found[seed] = encoded
    return found


def _data_uri(pixels: UInt8[np.ndarray, "H W 3"], size: tuple[int, int], form: str) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels)
    if pixels.shape[:2] != size:
        picture = picture.resize((size[1], size[0]), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format=form, **({"optimize": True} if form == "PNG" else {"quality": QUALITY}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _class_of(results: Results, seed: int) -> str:
    """The name of a seed's class, where the classes go round with the seeds."""
    names = results.classes.get("names") or []
    goes_round = str(results.classes.get("rule", "")).startswith("seed s has class s mod")
    if not names or not goes_round:
        return ""
    name = str(names[seed % len(names)])
    return f"class {name}" if name.isdecimal() else name

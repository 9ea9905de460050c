"""Pictures in the forms that evaluators of others read: one `.npz`, or a folder of PNG files."""

from __future__ import annotations

import os
import uuid
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from hguide.errors import ConfigError, ShapeError
from hguide.images import to_uint8, write_png

__all__ = ["write_npz", "write_png_folder"]


def write_npz(images: Float[Tensor, "n 3 H W"] | Iterable[Tensor], path: str | Path, count: int | None = None) -> None:
    """The `.npz` of the ADM evaluator: one array `arr_0`, `(n, H, W, 3)` uint8.

    Batches are written as they come, so that 50,000 pictures need the memory of one batch; equal pictures give equal
    bytes. The file appears whole or not at all.

    Args:
        images: all pictures in [0, 1], or batches of them.
        path: of the file.
        count: pictures in all; asked for where batches are given, since it stands in front of them.

    Raises:
        ConfigError: another number of pictures comes, or the file cannot be written.
        ShapeError: batches of several sizes.
    """
    if isinstance(images, Tensor):
        count, images = len(images), [images]
    if count is None or count < 1:
        raise ConfigError(f"count, the number of pictures in all, is at least 1 and must be given, got {count}.")
    target = Path(path)
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with zipfile.ZipFile(unfinished, "w") as archive:
            _write_array(archive, images, count)
        os.replace(unfinished, target)
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror or error}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _write_array(archive: zipfile.ZipFile, images: Iterable[Tensor], count: int) -> None:
    # A fixed date: the same pictures are the same file.
    entry = zipfile.ZipInfo("arr_0.npy", (1980, 1, 1, 0, 0, 0))
    written, shape = 0, None
    with archive.open(entry, "w", force_zip64=True) as file:
        for batch in images:
            pixels = to_uint8(batch)
            if shape is None:
                shape = pixels.shape[1:]
                header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
                np.lib.format.write_array_header_1_0(file, header)
            if pixels.shape[1:] != shape:
                raise ShapeError(f"all pictures have one size, got {pixels.shape[1:3]} after {shape[:2]}.")
            written += len(pixels)
            if written > count:
                break
            file.write(pixels.tobytes())
    if written != count:
        more = "or more " if written > count else ""
        raise ConfigError(f"count says {count} pictures, but {written} {more}came; nothing was written.")


def write_png_folder(
    images: Float[Tensor, "n 3 H W"],
    folder: str | Path,
    names: Sequence[str],
    text: Mapping[str, str] | None = None,
) -> list[Path]:
    """One PNG per picture.

    Args:
        images: in [0, 1].
        folder: is made where it is missing.
        names: one per picture, without the ending; "beach/000012" makes a folder per class.
        text: keyword -> text, put into each file.

    Returns:
        Paths in the order of the pictures.

    Raises:
        ConfigError: names repeat, leave the folder, or are not one per picture; or a file cannot be written.
    """
    if len(names) != len(images) or len(set(names)) != len(names):
        raise ConfigError(f"one name per picture: {len(images)} pictures, {len(set(names))} distinct names.")
    root = Path(folder)
    outside = [name for name in names if not name or Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise ConfigError(f"names stay inside {root}, got {outside[0]!r}.")
    paths = [root / f"{name}.png" for name in names]
    try:
        for parent in {path.parent for path in paths}:
            parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {root}: {error.strerror or error}.") from error
    for path, pixels in zip(paths, to_uint8(images), strict=True):
        write_png(path, pixels, text)
    return paths

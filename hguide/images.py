"""Images as bytes and files: rounding, PNG with text, centre crops."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from hguide.errors import ConfigError
from hguide.grids import Grid

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["read_image", "read_png", "to_uint8", "write_bytes", "write_png"]


def to_uint8(images: Float[Tensor, "b 3 H W"]) -> UInt8[np.ndarray, "b H W 3"]:
    """Bytes of images in [0, 1], channel last: floor(255 x + 0.5), so that every byte is the nearest one.

    >>> to_uint8(torch.tensor([0.0, 0.5, 1.0]).reshape(1, 3, 1, 1)).ravel().tolist()
    [0, 128, 255]
    """
    scaled = images.detach().float().cpu().mul(255.0).add_(0.5).floor_().clamp_(0.0, 255.0)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that a reader sees whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_png(path: Path, pixels: UInt8[np.ndarray, "H W 3"], text: Mapping[str, str] | None = None) -> None:
    """Write a PNG with text chunks, whole or not at all.

    Args:
        path: of the file; its folder exists.
        pixels: `(H, W, 3)`.
        text: keyword -> text, for instance {"guidance": "cfg(1.5)"}.

    Raises:
        ConfigError: the file cannot be written.
    """
    import io

    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for keyword, value in (text or {}).items():
        info.add_itxt(keyword, value)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", pnginfo=info, optimize=True)
    write_bytes(path, buffer.getvalue())


def read_png(path: Path) -> tuple[UInt8[np.ndarray, "H W 3"], dict[str, str]]:
    """Pixels and text chunks of a picture.

    Raises:
        ConfigError: no such file, or no picture.
    """
    with _open(path) as picture:
        pixels = np.asarray(_rgb(picture, path))
        text = {str(key): str(value) for key, value in getattr(picture, "text", {}).items()}
    return pixels, text


def read_image(path: Path, size: Grid) -> Float[Tensor, "1 3 H W"]:
    """A picture in [0, 1]: its centre in the shape of `size`, resized with a Lanczos filter.

    What is transparent is laid over white. Gray of 16 bits is read with 65535 as 1.

    Args:
        path: a picture of any size that PIL reads.
        size: height and width wanted.

    Raises:
        ConfigError: no such file, no picture, or numbers of which nothing tells what is black and what white: floats,
            integers beyond 16 bits.
    """
    from PIL import Image, ImageOps

    with _open(path) as picture:
        upright = _rgb(ImageOps.exif_transpose(picture), path)
        cropped = ImageOps.fit(upright, (size[1], size[0]), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(cropped)).permute(2, 0, 1)[None].float().div_(255.0)


def _rgb(picture: Image.Image, path: Path) -> Image.Image:
    """8 bits of red, green and blue: PIL alone clips larger numbers and uncovers what transparent pixels hide."""
    from PIL import Image

    if picture.mode == "F":
        raise _unreadable(path, "floats")
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise _unreadable(path, f"integers from {values.min()} to {values.max()}")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        clear = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return picture.convert("RGB")


def _unreadable(path: Path, held: str) -> ConfigError:
    return ConfigError(
        f"{path}: its pixels are {held}, which do not tell what is black and what is white: scale them to 0-255 or "
        "0-65535 and save them as a PNG of 8 or 16 bits."
    )


def _open(path: Path) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    reason: Any
    try:
        picture = Image.open(path)
        picture.load()
        return picture
    except FileNotFoundError:
        reason = "no such file"
    except UnidentifiedImageError:
        reason = "not a picture"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = error
    raise ConfigError(f"cannot read the picture {path}: {reason}.")

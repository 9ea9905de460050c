"""Arrays in a file beside which a note holds their checksum: whole, or known to be damaged."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hguide.errors import ConfigError
from hguide.images import write_bytes

__all__ = ["Sealed", "read_sealed", "remove_sealed", "write_sealed"]


@dataclass(frozen=True, eq=False)
class Sealed:
    """What one file holds.

    Attributes:
        arrays: by name.
        facts: plain values of the note.
    """

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(default_factory=dict)


def write_sealed(path: Path, sealed: Sealed) -> None:
    """Write `path` (.npz), then its note (.json): a process killed in between leaves no note, hence nothing.

    Args:
        path: of the arrays; its folder is made where it is missing.
        sealed: what to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **sealed.arrays)  # type: ignore[arg-type]
    content = buffer.getvalue()
    note = {"sha256": hashlib.sha256(content).hexdigest(), **sealed.facts}
    write_bytes(path, content)
    write_bytes(path.with_suffix(".json"), (json.dumps(note, indent=1) + "\n").encode())


def read_sealed(path: Path) -> Sealed | None:
    """What `write_sealed` wrote, or None where nothing was finished.

    Raises:
        ConfigError: the arrays are not those that the note is of, or either cannot be read.
    """
    note = path.with_suffix(".json")
    if not note.exists():
        return None
    try:
        facts = json.loads(note.read_text(encoding="utf-8"))
        content = path.read_bytes()
        if facts.pop("sha256") != hashlib.sha256(content).hexdigest():
            raise ConfigError(f"{path} is damaged: its checksum is not the recorded one.")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return Sealed({name: file[name] for name in file.files}, facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is damaged: {error!r}.") from error


def remove_sealed(path: Path) -> None:
    """Remove the note, then the arrays."""
    path.with_suffix(".json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)

"""Files of an earlier run, which give way to those of the next: told from files of others by the mark they carry."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from hguide.cli.settings import KEYWORD
from hguide.errors import ConfigError
from hguide.images import read_png

__all__ = ["carries", "refuse_foreign"]


def carries(file: Path, schema: str) -> bool:
    """Whether a JSON file or a PNG names this schema, of any version ("hguide.demo/1")."""
    try:
        text = read_png(file)[1].get(KEYWORD, "") if file.suffix == ".png" else file.read_text(encoding="utf-8")
        found = json.loads(text)
    except (ConfigError, OSError, ValueError):
        return False
    named = found.get("schema") if isinstance(found, dict) else None
    return isinstance(named, str) and named.partition("/")[0] == schema.partition("/")[0]


def refuse_foreign(files: Iterable[Path], ours: Iterable[Path], command: str) -> None:
    """Refuse to replace files that an earlier run did not write.

    Args:
        files: that are to be written.
        ours: those of them that an earlier run wrote.
        command: that writes them.

    Raises:
        ConfigError: names a file that is there and not ours.
    """
    known = set(ours)
    foreign = [file for file in files if file not in known and (file.exists() or file.is_symlink())]
    if foreign:
        raise ConfigError(
            f"{foreign[0]} is in the way and was not written by `hguide {command}`: choose another --out, or move it."
        )

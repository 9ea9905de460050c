"""A directory of recorded files with one configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hguide.errors import CheckpointError, ConfigError

__all__ = ["Folder", "RecordedFile", "read_json"]

CONFIG = "config.json"
RECORDED = (".safetensors", ".json")


@dataclass(frozen=True)
class RecordedFile:
    """One file of recorded values.

    Args:
        path: of the file.
        case: its name in the report: the path below the replayed directory, without ending.
    """

    path: Path
    case: str

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the tensors, or of the entries of a JSON object; the tensors themselves are not read.

        Raises:
            CheckpointError: the file is damaged.
        """
        if self.path.suffix == ".json":
            content = read_json(self.path)
            return frozenset(content) if isinstance(content, dict) else frozenset()
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                return frozenset(file.keys())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path}: damaged or no safetensors file ({error}).") from error


@dataclass(frozen=True)
class Folder:
    """The files of one folder.

    Args:
        path: of the folder.
        files: that are to be replayed.
        config: content of its config.json, or of the nearest one above; empty where there is none.
        absent: cases that the configuration has settings for, but that are not there.
    """

    path: Path
    files: tuple[RecordedFile, ...]
    config: Mapping[str, Any]
    absent: tuple[str, ...] = ()


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ConfigError: it is not readable as JSON.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not readable as JSON ({error}).") from error

"""Configurations that come with the package."""

from __future__ import annotations

from pathlib import Path

from hguide.errors import ConfigError, near_matches

__all__ = ["config_file"]


def config_file(name_or_path: str | Path) -> Path:
    """The file at a path, or the one of that name that comes along.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    bundled = {each.stem: each for each in Path(__file__).parent.glob("*.yaml")}
    if path.name == str(name_or_path) and path.stem in bundled:
        return bundled[path.stem]
    raise ConfigError(f"no configuration at {path}. Those that come along: {near_matches(path.stem, bundled)}")

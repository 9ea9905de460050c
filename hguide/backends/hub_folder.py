"""Folders of several files, on disk or from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hguide.backends.hub import HUB_ID
from hguide.errors import CheckpointError

__all__ = ["fetch_folder"]


def fetch_folder(name_or_path: str | Path, revision: str | None = None, patterns: Sequence[str] = ()) -> Path:
    """A local folder, downloaded if need be.

    Args:
        name_or_path: a folder, or a hub id "org/name".
        revision: branch, tag or commit of the hub repository; has no meaning for local folders.
        patterns: shell patterns of the files to download; all by default.

    Raises:
        CheckpointError: there is no such folder, or it cannot be downloaded.
    """
    local = Path(name_or_path).expanduser()
    if local.is_dir():
        return local
    text = str(name_or_path)
    if local.exists() or not HUB_ID.fullmatch(text):
        raise CheckpointError(f"{text}: no such folder.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"{text}: downloading needs the hub extra (pip install 'hguide[hub]'); or download it by other means and "
            "pass its path."
        ) from error
    try:
        return Path(snapshot_download(text, revision=revision, allow_patterns=list(patterns) or None))
    except Exception as error:  # the client's network errors share no base class across its versions
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{text}: no such folder, and it cannot be downloaded ({reason[:200]}); pass the path of a copy."
        ) from error

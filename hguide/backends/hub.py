"""Where weights come from: a local path, an official name, or a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from hguide.errors import CheckpointError, near_matches

__all__ = ["OFFICIAL_FILES", "fetch"]

VAR_REPOSITORY = "FoundationVision/var"
INFINITY_REPOSITORY = "FoundationVision/Infinity"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")

OFFICIAL_FILES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "var-d16": (VAR_REPOSITORY, "var_d16.pth"),
        "var-d20": (VAR_REPOSITORY, "var_d20.pth"),
        "var-d24": (VAR_REPOSITORY, "var_d24.pth"),
        "var-d30": (VAR_REPOSITORY, "var_d30.pth"),
        "var-d36": (VAR_REPOSITORY, "var_d36.pth"),
        "var-vae": (VAR_REPOSITORY, "vae_ch160v4096z32.pth"),
        "infinity-2b": (INFINITY_REPOSITORY, "infinity_2b_reg.pth"),
        "infinity-vae-d32reg": (INFINITY_REPOSITORY, "infinity_vae_d32reg.pth"),
        "infinity-vae-d56": (INFINITY_REPOSITORY, "infinity_vae_d56_f8_14_patchify.pth"),
    }
)
"""Short name -> (hub repository, file) of the published weights that are single files."""


def fetch(name_or_path: str | Path, file: str | None = None, revision: str | None = None) -> Path:
    """A local file of weights, downloaded if need be.

    The hub's current main revision is used unless one is given. The published VAR weights were replaced once (April
    2024), so give the commit hash you mean wherever results must be repeatable. This package names none itself: none
    could be verified when it was written.

    Args:
        name_or_path: a file, a folder, a short official name (`OFFICIAL_FILES`) or a hub id "org/name".
        file: the file inside the folder or the hub repository.
        revision: branch, tag or commit of the hub repository; has no meaning for local files.

    Returns:
        path of the file.

    Raises:
        CheckpointError: there is no such file or name, or it cannot be downloaded.
    """
    text = str(name_or_path)
    local = Path(text).expanduser()
    if local.exists():
        return _local(local, file)
    if text in OFFICIAL_FILES:
        repository, official = OFFICIAL_FILES[text]
        return _download(repository, file or official, revision)
    if HUB_ID.fullmatch(text) and not text.endswith(WEIGHTS):
        return _download(text, file or _only_file(text), revision)
    raise CheckpointError(
        f"{text}: no such file, and no published model of that name. {near_matches(text, OFFICIAL_FILES)}"
    )


def _local(path: Path, file: str | None) -> Path:
    if path.is_file():
        return path
    if file is None:
        offered = sorted(each.name for each in path.iterdir() if each.suffix in WEIGHTS)
        if len(offered) == 1:
            return path / offered[0]
        raise CheckpointError(
            f"{path}: a folder; say which file of it is meant. It holds: {', '.join(offered) or 'none'}."
        )
    if not (path / file).is_file():
        raise CheckpointError(f"{path / file}: no such file.")
    return path / file


def _only_file(repository: str) -> str:
    known = [file for owner, file in OFFICIAL_FILES.values() if owner == repository]
    hint = f" Known: {', '.join(known)}." if known else ""
    raise CheckpointError(f"{repository}: a hub repository; say which file of it is meant.{hint}")


def _download(repository: str, file: str, revision: str | None) -> Path:
    what = f"{repository}/{file}" + (f" at {revision}" if revision else "")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError as error:
        raise CheckpointError(
            f"{what}: downloading needs the hub extra (pip install 'hguide[hub]'); or download it by other means "
            "and pass its path."
        ) from error
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{what}: not in the local cache, and the hub cannot be reached; download it elsewhere and pass its path."
        ) from error
    except EntryNotFoundError as error:
        raise CheckpointError(f"{what}: the repository has no such file.") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"{what}: no such repository on the hub, or it is not public.") from error
    except Exception as error:  # the client's network errors share no base class across its versions
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{what}: download failed ({reason[:200]}).") from error

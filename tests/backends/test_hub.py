"""Where files of weights come from: local paths, official names, hub repositories."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from hguide.backends.hub import OFFICIAL_FILES, fetch
from hguide.errors import CheckpointError


def one_line(raised):
    assert "\n" not in str(raised.value)


def test_local_files_and_folders(tmp_path):
    for name in ("a.pth", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert fetch(tmp_path / "a.pth") == tmp_path / "a.pth"
    assert fetch(tmp_path) == tmp_path / "a.pth"
    assert fetch(str(tmp_path), "a.pth") == tmp_path / "a.pth"
    with pytest.raises(CheckpointError, match=r"b\.pth: no such file"):
        fetch(tmp_path, "b.pth")
    (tmp_path / "b.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"say which file.*a\.pth, b\.pth"):
        fetch(tmp_path)


@pytest.mark.parametrize("name", ["weights/absent.pth", "./absent.pth", "var-d61", "a/b/c"])
def test_names_that_are_nowhere(name):
    with pytest.raises(CheckpointError, match=r"no such file, and no published model of that name..*Known: .*var-d16"):
        fetch(name)


def test_misspelt_official_names_get_a_hint():
    with pytest.raises(CheckpointError, match="did you mean 'var-d36'"):
        fetch("var-d3-6")


def test_a_repository_needs_a_file():
    with pytest.raises(CheckpointError, match=r"say which file.*var_d16\.pth"):
        fetch("FoundationVision/var")


def hub(monkeypatch, download):
    errors = types.ModuleType("huggingface_hub.errors")
    errors.EntryNotFoundError = type("EntryNotFoundError", (Exception,), {})
    errors.LocalEntryNotFoundError = type("LocalEntryNotFoundError", (errors.EntryNotFoundError,), {})
    errors.RepositoryNotFoundError = type("RepositoryNotFoundError", (Exception,), {})
    client = types.ModuleType("huggingface_hub")
    client.hf_hub_download = download
    client.errors = errors
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return errors


def test_downloads_ask_for_repository_file_and_revision(monkeypatch):
    asked = []

    def download(repository, file, revision=None):
        asked.append((repository, file, revision))
        return "/cache/file.pth"

    hub(monkeypatch, download)
    assert fetch("var-d16") == Path("/cache/file.pth")
    fetch("var-vae", revision="abc")
    fetch("org/name", "w.safetensors", "main")
    assert asked == [
        ("FoundationVision/var", "var_d16.pth", None),
        ("FoundationVision/var", "vae_ch160v4096z32.pth", "abc"),
        ("org/name", "w.safetensors", "main"),
    ]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("LocalEntryNotFoundError", "not in the local cache, and the hub cannot be reached"),
        ("EntryNotFoundError", "the repository has no such file"),
        ("RepositoryNotFoundError", "no such repository"),
        (None, r"download failed \(timed out\)"),
    ],
)
def test_failed_downloads_say_why_in_one_line(monkeypatch, error, message):
    def download(*args, **options):
        raise (getattr(errors, error) if error else TimeoutError)("timed out\nsecond line")

    errors = hub(monkeypatch, download)
    with pytest.raises(CheckpointError, match=rf"FoundationVision/var/var_d30\.pth at v1: .*{message}") as raised:
        fetch("var-d30", revision="v1")
    one_line(raised)


def test_without_the_hub_extra_the_message_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'hguide\[hub\]'"):
        fetch("var-d16")


def test_the_real_client_has_the_names_used_here():
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    assert callable(hf_hub_download)
    assert issubclass(LocalEntryNotFoundError, EntryNotFoundError)
    assert not issubclass(RepositoryNotFoundError, EntryNotFoundError)
    assert all("/" in repository for repository, _ in OFFICIAL_FILES.values())

"""Every Python snippet of the README and the docs runs, and every command they show exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hguide.guidance import registry

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """(place, text) of each fenced block of a language."""
    found = []
    for page in PAGES:
        for match in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            line = page.read_text()[: match.start()].count("\n") + 1
            found.append((f"{page.name}:{line}", match[1]))
    return found


@pytest.mark.parametrize(("place", "code"), blocks("python"), ids=[place for place, _ in blocks("python")])
def test_a_snippet_runs(place: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A snippet may register a name; the next test shall not find it.
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    # A module of its own: dataclasses look their annotations up there.
    import sys
    import types

    module = types.ModuleType(f"snippet_{abs(hash(place))}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, place, "exec"), module.__dict__)


def test_there_are_snippets() -> None:
    assert {place.split(":")[0] for place, _ in blocks("python")} >= {"README.md", "new_guidance.md", "new_backend.md"}


@pytest.mark.parametrize(("place", "code"), blocks("bash"), ids=[place for place, _ in blocks("bash")])
def test_a_command_exists(place: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    from hguide.cli import main

    commands = re.findall(r"(?:^|/|&& )hguide ([a-z]+)", code, re.MULTILINE)
    assert commands or "pytest" in code or "pip install" in code
    for command in commands:
        try:
            code_ = main([command, "--help"])
        except SystemExit as stop:
            code_ = stop.code
        assert code_ in (0, None)
        assert "usage" in capsys.readouterr().out.lower()

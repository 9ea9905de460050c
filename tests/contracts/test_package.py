"""The package as a whole: what it imports, in which direction, and how fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hguide"
LOW = {"autocast", "errors", "grids", "kernels", "registry"}
CONTRACTS = LOW | {
    "streams",
    "transfer",
    "noise",
    "memory",
    "generator",
    "sampling",
    "schedules",
    "priors",
    "text",
    "graphs",
}
ALLOWED = {
    "schedules": LOW | {"schedules"},
    "priors": LOW | {"schedules", "priors"},
    "guidance": LOW | {"schedules", "priors", "streams", "text", "guidance"},
    "backends": CONTRACTS | {"backends"},
}


def imports(path: Path) -> set[str]:
    """Sub-packages of hguide that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules = [node.module or ""]
            if node.module == "hguide":
                modules = [f"hguide.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        names |= {module.split(".")[1] for module in modules if module.startswith("hguide.")}
    return names


@pytest.mark.parametrize("folder", ALLOWED)
def test_nothing_is_imported_upward(folder: str) -> None:
    for path in (PACKAGE / folder).rglob("*.py"):
        assert imports(path) <= ALLOWED[folder], f"{path} imports {imports(path) - ALLOWED[folder]}"


def test_contracts_do_not_know_what_stands_on_them() -> None:
    for name in CONTRACTS - {"schedules", "priors"}:
        assert not imports(PACKAGE / f"{name}.py") & {
            "backends",
            "experiments",
            "theory",
            "cli",
            "guidance",
            "generate",
        }


def test_the_command_line_stands_on_top() -> None:
    """Only `python -m hguide` imports it; in particular no experiment, which its commands run."""
    above = {PACKAGE / "__main__.py", *(PACKAGE / "cli").rglob("*.py")}
    users = [path for path in PACKAGE.rglob("*.py") if path not in above and "cli" in imports(path)]
    assert users == []


def test_the_links_at_the_top_lead_into_the_package() -> None:
    for name in ("backends", "priors", "schedules", "theory", "experiments"):
        link = ROOT / name
        if link.is_symlink():  # a checkout may be without links
            assert link.readlink() == Path("hguide") / name


def test_importing_is_quick_and_leaves_the_heavy_libraries_alone() -> None:
    # Seconds of the process, not of the clock: the tests share the machine.
    code = (
        "import time, sys, torch; start = time.process_time(); import hguide; "
        "print(time.process_time() - start, [m for m in ('lightning', 'transformers', 'matplotlib', 'scipy', 'pywt', "
        "'torch_dct', 'PIL', 'jsonargparse') if m in sys.modules])"
    )
    seconds, heavy = [], set()
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        took, rest = done.stdout.split(" ", 1)
        seconds.append(float(took))
        heavy.add(rest.strip())
    assert heavy == {"[]"}
    assert min(seconds) < 0.3


def test_the_same_tokens_in_another_process() -> None:
    code = (
        "import hguide, hashlib; images = hguide.generate(hguide.load('toy'), 1, 'cfg | ssg', seeds=[11, {}], "
        "deterministic=True); print(hashlib.sha256(images[0].numpy().tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run([sys.executable, "-c", code.format(other)], capture_output=True, text=True, check=True).stdout
        for other in (3, 40)
    }
    assert len(digests) == 1

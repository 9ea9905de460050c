"""Checks the built wheel and sdist: every module and data file is there, and the demo runs from the wheel alone.

python tests/packages.py DIST
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = {".safetensors", ".json", ".yaml", ".typed"}


def package_files() -> set[str]:
    """Every file of the package in the checkout."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "hguide").rglob("*")
        if path.is_file()
        and (path.suffix in {".py"} | DATA or path.name == "py.typed")
        and "__pycache__" not in path.parts
    }


def check(what: str, found: set[str]) -> None:
    """Compare with the checkout."""
    wanted = package_files()
    missing = sorted(wanted - found)
    assert not missing, f"{what} lacks {missing}"
    stray = sorted(
        name for name in found if name.split("/")[0] in {"tests", "docs", "backends", "priors", "experiments"}
    )
    print(f"{what}: {len(wanted)} package files, all there")
    if what == "wheel":
        assert not stray, f"wheel carries {stray}"


def main(dist: Path) -> None:
    """Check both packages, then run the main job from the wheel."""
    (wheel,), (sdist,) = list(dist.glob("*.whl")), list(dist.glob("*.tar.gz"))
    with zipfile.ZipFile(wheel) as archive:
        check("wheel", set(archive.namelist()))
    with tarfile.open(sdist) as archive:
        check("sdist", {name.partition("/")[2] for name in archive.getnames()})
    with tempfile.TemporaryDirectory() as folder:
        site, out = Path(folder) / "site", Path(folder) / "out"
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
        subprocess.run(install, check=True)
        code = f"import sys; sys.path.insert(0, {str(site)!r}); import hguide; "
        code += f"assert hguide.__file__.startswith({str(site)!r}), hguide.__file__; "
        code += f"from hguide.cli import main; sys.exit(main(['demo', '--out', {str(out)!r}]))"
        subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd=folder)
        made = sorted(path.name for path in out.iterdir())
        assert any(name.endswith(".png") for name in made), made
        assert any(name.endswith(".json") for name in made), made
        print(f"demo from the wheel made {made}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""One small run of the whole golden folder, and a copy of it to spoil."""

from __future__ import annotations

from pathlib import Path

import pytest

from hguide.experiments.parity.report import Report
from hguide.experiments.parity.run import parity

GOLDEN = Path(__file__).parents[2] / "golden" / "var"
SMALL = ("adaln", "saln", "vae_full", "quant10", "sampling", "phi_index", "manifest_*")


@pytest.fixture(scope="module")
def report() -> Report:
    return parity(GOLDEN, only=SMALL)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The folders `adaln` and `saln`, to be changed."""
    for name in ("adaln", "saln"):
        (tmp_path / name).mkdir()
        for file in (GOLDEN / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    return tmp_path

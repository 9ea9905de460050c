"""A small ablation on the toy generator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import hguide
from hguide.images import to_uint8


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real pictures of the toy: its own samples of other seeds."""
    images = hguide.generate(hguide.load("toy"), [seed % 4 for seed in range(32)], seeds=range(1000, 1032))
    path = tmp_path_factory.mktemp("pictures") / "real.npz"
    np.savez(path, arr_0=to_uint8(images))
    return path


@pytest.fixture
def written(tmp_path: Path, pictures: Path) -> Callable[..., Path]:
    """Writes a configuration of the toy, with changes; None takes an entry out."""

    def write(name: str = "toy.yaml", **changes: Any) -> Path:
        entries = {
            "model": "toy",
            "guidance": ["none", "cfg(2.0) | ssg(0.5)"],
            "seeds": "0-7",
            "block": 4,
            "reference": str(pictures),
            "measures": ["kd", "score"],
            "replicates": 10,
        }
        kept = {key: value for key, value in (entries | changes).items() if value is not None}
        path = tmp_path / name
        path.write_text(yaml.safe_dump(kept, sort_keys=False))
        return path

    return write


@pytest.fixture
def rows() -> Callable[..., torch.Tensor]:
    """Rows of features."""

    def make(seed: int, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

    return make

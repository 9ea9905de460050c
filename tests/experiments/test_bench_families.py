"""`hguide bench families`: models of published sizes, and the rows of a tiny one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import hguide
from hguide import Sampler
from hguide.errors import ConfigError
from hguide.experiments.bench.families import FamiliesBenchConfig, run
from hguide.experiments.bench.published_sizes import SIZES, Sized
from hguide.experiments.bench.report import NOT_MEASURED
from hguide.guidance import parse

# Of the transformers, in thousands of millions, as the official programs and papers have them.
PARAMETERS = {"hart": 0.7324, "infinity": 2.2046, "switti": 2.4705, "vq-diffusion": 0.5180}


@pytest.mark.parametrize("family", SIZES)
def test_the_sizes_are_the_published_ones(family: str) -> None:
    """On the meta device, where weights take no memory."""
    with torch.device("meta"):
        sized = SIZES[family](torch.bfloat16)
    network = sized.model.denoiser if family == "vq-diffusion" else sized.model.transformer
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e9
    assert count == pytest.approx(PARAMETERS[family], abs=1e-4)
    parse(sized.guidance)
    assert sized.model.serves.null


def small(dtype: torch.dtype) -> Sized:
    return Sized(hguide.load("landuse-hart"), 1, "cfg(1.5) | ssg(0.5)", Sampler())


def test_a_run_is_timed(tmp_path: Path) -> None:
    lines: list[str] = []
    config = FamiliesBenchConfig(batches=[1, 2], repeat=2, out=tmp_path / "bench.json")
    report = run(config, sizes={"hart": small}, progress=lines.append)
    assert [row.ms is not None and row.ms > 0 for row in report.rows] == [True, True]
    assert {row.verdict for row in report.rows} == {NOT_MEASURED}
    assert "graphs need a CUDA device" in report.text(every=True)
    assert len(lines) == 3
    assert len(json.loads((tmp_path / "bench.json").read_text())["rows"]) == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"repeat": 0}, "at least 1"),
        ({"batches": []}, "at least 1"),
        ({"dtype": "float8"}, "dtype is float32, bfloat16, float16"),
        ({"families": ["hartt"]}, "no published size of 'hartt'.*hart"),
    ],
)
def test_mistakes(options: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        FamiliesBenchConfig(**options)

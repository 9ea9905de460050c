"""Exports, perceptual distance, optional packages, and names."""

from __future__ import annotations

import importlib
import re
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hguide.experiments.measures as measures
from hguide.errors import ConfigError, ShapeError
from hguide.experiments.measures.export import write_npz, write_png_folder
from hguide.experiments.measures.frechet_distance import FrechetDistance
from hguide.experiments.measures.kernel_distance import KernelDistance
from hguide.experiments.measures.perceptual_distance import (
    MeanPerceptualDistance,
    lpips_network,
    perceptual_distance,
)
from hguide.experiments.measures.spatial_frechet_distance import SpatialFrechetDistance
from hguide.experiments.measures.torch_fidelity import torch_fidelity_scores
from hguide.images import read_png, to_uint8

FOLDER = Path(measures.__file__).parent


def pictures(count: int = 5) -> torch.Tensor:
    return torch.rand(count, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def test_npz_is_what_the_evaluator_reads(tmp_path: Path) -> None:
    write_npz(pictures(), tmp_path / "a.npz")
    write_npz(iter(pictures().split(2)), tmp_path / "b.npz", count=5)
    with np.load(tmp_path / "a.npz") as file:
        assert file.files == ["arr_0"]
        pixels = file["arr_0"]
    assert pixels.dtype == np.uint8
    assert pixels.shape == (5, 6, 8, 3)
    np.testing.assert_array_equal(pixels, np.floor(pictures().permute(0, 2, 3, 1).numpy() * 255 + 0.5))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("count", [4, 6])
def test_npz_of_another_count_leaves_nothing(tmp_path: Path, count: int) -> None:
    with pytest.raises(ConfigError, match=f"count says {count} pictures, but 5"):
        write_npz(pictures().split(1) if count == 6 else [pictures()], tmp_path / "a.npz", count=count)
    assert list(tmp_path.iterdir()) == []


def test_npz_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be given, got None"):
        write_npz([pictures()], tmp_path / "a.npz")
    with pytest.raises(ShapeError, match=r"one size, got \(6, 4\) after \(6, 8\)"):
        write_npz([pictures(2), pictures(2)[..., :4]], tmp_path / "a.npz", count=4)
    with pytest.raises(ConfigError, match=r"cannot write .*a\.npz: No such file"):
        write_npz(pictures(), tmp_path / "missing" / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_png_folder(tmp_path: Path) -> None:
    names = [f"beach/{i:06d}" for i in range(5)]
    paths = write_png_folder(pictures(), tmp_path / "out", names, {"guidance": "cfg(1.5)"})
    assert [str(path.relative_to(tmp_path / "out")) for path in paths] == [f"{name}.png" for name in names]
    for path, wanted in zip(paths, to_uint8(pictures()), strict=True):
        pixels, text = read_png(path)
        np.testing.assert_array_equal(pixels, wanted)
        assert text["guidance"] == "cfg(1.5)"


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a"] * 5, "5 pictures, 1 distinct"), (["a"], "5 pictures"), (["../a", *"bcde"], r"stay inside .*'\.\./a'")],
)
def test_png_refusals(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_png_folder(pictures(), tmp_path, names)


def test_perceptual_distance_by_loops() -> None:
    x, y = pictures(3), pictures(3).flip(0)

    def maps(images: torch.Tensor) -> list[torch.Tensor]:
        return [images - 0.5, torch.nn.functional.avg_pool2d(images, 2)]

    found = perceptual_distance(x, y, maps)
    for i in range(3):
        layers = []
        for a, b in zip(maps(x), maps(y), strict=True):
            a, b = a[i].double().numpy(), b[i].double().numpy()
            positions = [
                np.sum((a[:, u, v] / np.linalg.norm(a[:, u, v]) - b[:, u, v] / np.linalg.norm(b[:, u, v])) ** 2)
                for u, v in np.ndindex(*a.shape[1:])
            ]
            layers.append(np.mean(positions))
        assert float(found[i]) == pytest.approx(float(np.mean(layers)), rel=1e-10)
    assert found[1] == 0
    torch.testing.assert_close(
        perceptual_distance(x, y, lambda i: i - 0.5), perceptual_distance(y, x, lambda i: i - 0.5)
    )


def test_mean_perceptual_distance() -> None:
    distance = partial(perceptual_distance, maps=lambda images: images - 0.5)
    one, other = MeanPerceptualDistance(distance), MeanPerceptualDistance(distance)
    x, y = pictures(), pictures().flip(2)
    with pytest.raises(ConfigError, match="at least one pair"):
        one.compute()
    one.update(x[:2], y[:2])
    other.update(x[2:], y[2:])
    one.merge(other)
    assert one.compute() == pytest.approx(float(distance(x, y).mean()), rel=1e-12)
    one.reset()
    assert one.count == 0


def test_packages_that_cannot_be_imported_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ConfigError, match=r"torch-fidelity>=0\.4 and torchvision.*import of torch_fidelity halted"):
        torch_fidelity_scores(tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="LPIPS needs the packages lpips and torchvision.*import of lpips halted"):
        lpips_network()
    with pytest.raises(ConfigError, match="nowhere is none"):
        torch_fidelity_scores("nowhere", tmp_path)


def test_torch_fidelity_is_given_the_sample_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def calculate_metrics(**options: Any) -> dict[str, float]:
        asked.update(options)
        return {"precision": 0.5}

    monkeypatch.setitem(sys.modules, "torch_fidelity", types.SimpleNamespace(calculate_metrics=calculate_metrics))
    sample, reference = tmp_path / "sample", tmp_path / "reference"
    sample.mkdir()
    reference.mkdir()
    assert torch_fidelity_scores(sample, reference) == {"torch-fidelity: precision": 0.5}
    assert (asked["input1"], asked["input2"]) == (str(sample), str(reference))


def test_lpips_takes_pictures_in_unit_range(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()

        def forward(self, x: torch.Tensor, y: torch.Tensor, normalize: bool) -> torch.Tensor:
            assert normalize
            return (x - y).abs().mean((1, 2, 3), keepdim=True)

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Fake))
    mean = MeanPerceptualDistance(lpips_network())
    mean.update(pictures(), pictures() * 0)
    assert mean.compute() == pytest.approx(float(pictures().mean()), rel=1e-6)


def test_names() -> None:
    assert [each.name for each in (KernelDistance, FrechetDistance, SpatialFrechetDistance)] == ["KD", "FD", "sFD"]
    for path in FOLDER.glob("*.py"):
        assert not re.search(r"FID|fid_", path.read_text()), path
        module = importlib.import_module(f"{measures.__name__}.{path.stem}")
        for name in getattr(module, "__all__", []):
            assert not re.search(r"(^|_)fid(_|$)", name, re.IGNORECASE)

"""The reference: its crops, its file, and the one that the package carries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hguide.cli import main
from hguide.errors import CheckpointError, ConfigError
from hguide.experiments.extractors import LanduseExtractor, Projection
from hguide.experiments.features import FeatureConfig, FeatureNetwork, load_features, save_features
from hguide.experiments.reference import (
    Crops,
    bundled_reference,
    for_networks,
    load_reference,
    reference_of_images,
    save_reference,
)
from hguide.experiments.training.data import Scenes
from hguide.experiments.training.reference import scene_crops
from hguide.images import to_uint8


def made_scenes(count: int = 3, size: int = 12) -> Scenes:
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (count, size, size, 3), dtype=np.uint8))
    return Scenes(images, torch.arange(count) % 2, tuple(map(str, range(count))), ("a", "b"))


def test_crops_are_parts_of_their_scenes():
    scenes = made_scenes()
    crops, place = scene_crops(scenes, 5, 7, [1, 0])
    assert place.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    for crop, scene in zip(crops.numpy(), place.tolist(), strict=True):
        whole = scenes.images[scene].numpy()
        turned = [np.rot90(each, turn) for each in (crop, crop[::-1]) for turn in range(4)]
        corners = [(top, left) for top in range(6) for left in range(6)]
        assert any((whole[t : t + 7, s : s + 7] == each).all() for each in turned for t, s in corners)
    again, _ = scene_crops(scenes, 5, 7, [1, 0])
    assert torch.equal(crops, again)
    assert not torch.equal(crops, scene_crops(scenes, 5, 7, [1, 1])[0])
    with pytest.raises(ConfigError, match="cannot take 1 crops of 13 pixels from scenes of 12x12"):
        scene_crops(scenes, 1, 13, [0])


def test_the_bundled_reference():
    reference = load_reference()
    train, test = reference.train, reference.test
    assert (train.count, train.scene_count, test.count, test.scene_count) == (5040, 1680, 3360, 420)
    assert not set(train.scenes.tolist()) & set(test.scenes.tolist())
    assert train.labels.bincount().tolist() == [240] * 21
    assert reference.networks["features"] == load_features()[1]["sha256"]
    assert reference.about["classes"] == load_features()[1]["classes"]
    assert reference.size == (64, 64)
    assert bundled_reference().stat().st_size < 3_200_000
    # The classifier still knows the crops by their stored features.
    network, _ = load_features()
    right = (network.head(test.arrays["features"]).argmax(1) == test.labels).float().mean()
    assert 0.9 < float(right) < 0.96
    repeat = train.arrays["squeezenet"].double()
    assert repeat.var(0).mean() == pytest.approx(1.0, abs=0.01)
    covariance = torch.cov(repeat.T)
    assert (covariance - covariance.diagonal().diag()).abs().max() < 0.01


def test_principal_axes_are_those_of_the_singular_values():
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1, 4, 1, 5, 9])
    found = Projection.principal(rows, 3)
    centred = (rows - rows.mean(0)).numpy()
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    wanted = centred @ axes[:3].T / np.sqrt((values[:3] ** 2 / 49).mean())
    np.testing.assert_allclose(np.abs(found(rows).numpy()), np.abs(wanted), atol=1e-4)
    assert (found.basis.gather(0, found.basis.abs().argmax(0, keepdim=True)) > 0).all()


def small_network(path: Path) -> Path:
    torch.manual_seed(0)
    network = FeatureNetwork(FeatureConfig(classes=3, features=6, widths=(4, 4, 4), blocks=(1, 1, 1)))
    save_features(network, {"classes": ["beach", "forest", "river"]}, path)
    return path


def test_the_command_and_its_file(coded, tmp_path, capsys):
    features = small_network(tmp_path / "features.safetensors")
    out = tmp_path / "reference.safetensors"
    arguments = ["train", "reference", "--data", str(coded), "--features", str(features), "--out", str(out)]
    assert main([*arguments, "--train_crops", "2", "--test_crops", "3", "--size", "32"]) == 0
    assert str(out) in capsys.readouterr().out
    reference = load_reference(out)
    extractor = LanduseExtractor.load(features)
    assert for_networks(reference, extractor.hash, None) is reference
    with pytest.raises(ConfigError, match="computed with another network for 'features'"):
        for_networks(reference, load_features()[1]["sha256"], None)
    with pytest.raises(ConfigError, match="computed with another network for 'squeezenet'"):
        for_networks(reference, extractor.hash, "0" * 64)
    assert reference.size == (32, 32)
    assert reference.about["crops_per_scene"] == {"train": 2, "test": 3}
    first = out.read_bytes()
    main([*arguments, "--train_crops", "2", "--test_crops", "3", "--size", "32"])
    assert out.read_bytes() == first
    assert main([*arguments[:4], "--out", str(out)]) == 2
    assert "other classes" in capsys.readouterr().err


def test_a_side_comes_back_in_half_precision(tmp_path):
    random = torch.Generator().manual_seed(0)

    def side(first: int) -> Crops:
        arrays = {name: torch.randn(4, 3, generator=random) for name in ("features", "spatial", "squeezenet")}
        arrays["power"] = torch.randn(4, 5, generator=random).mul(4).exp().double()
        return Crops(arrays, torch.arange(first, first + 4), torch.tensor([0, 1, 0, 1]))

    train, test = side(0), side(4)
    projection = Projection(torch.zeros(7), torch.randn(7, 3, generator=random))
    about = {"name": "made", "size": 8, "networks": {"features": "f", "squeezenet": "s"}}
    save_reference(tmp_path / "r.safetensors", train, test, projection, about)
    found = load_reference(tmp_path / "r.safetensors")
    assert found.projection.hash == projection.hash
    for mine, theirs in ((found.train, train), (found.test, test)):
        assert torch.equal(mine.scenes, theirs.scenes)
        assert torch.equal(mine.labels, theirs.labels)
        for name, rows in theirs.arrays.items():
            torch.testing.assert_close(mine.arrays[name], rows, rtol=0.02 if name == "power" else 1e-3, atol=1e-4)
    assert "squeezenet" not in for_networks(found, "f", None).train.arrays


def test_pictures_of_your_own(tmp_path):
    extractor = LanduseExtractor.load(small_network(tmp_path / "features.safetensors"))
    pictures = to_uint8(torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    np.savez(tmp_path / "real.npz", arr_0=pictures)
    found = reference_of_images(tmp_path / "real.npz", {"landuse": extractor})
    assert (found.train.count, found.train.scene_count, found.test, found.size) == (5, 5, None, (32, 32))
    expected = extractor.network.features(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(found.train.arrays["features"], expected)
    np.savez(tmp_path / "wrong.npz", arr_0=pictures.astype(np.float32))
    with pytest.raises(ConfigError, match=r"arr_0 is \(n, H, W, 3\) uint8, got"):
        reference_of_images(tmp_path / "wrong.npz", {"landuse": extractor})
    counted = reference_of_images(tmp_path / "real.npz", {})
    assert (counted.train.count, counted.train.spread(3).count, counted.hash) == (5, 3, found.hash)
    assert not counted.train.arrays
    np.savez(tmp_path / "other.npz", images=pictures)
    with pytest.raises(ConfigError, match="expected an .npz with pictures in arr_0"):
        reference_of_images(tmp_path / "other.npz", {"landuse": extractor})


@pytest.mark.parametrize("damage", ["cut", "start", "flip", "empty", "npy", "text"])
def test_pictures_that_are_damaged(damage, tmp_path):
    path = tmp_path / "real.npz"
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    np.savez_compressed(path, arr_0=pictures)
    content = path.read_bytes()
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, pictures)
    else:
        middle = content[:900] + bytes([content[900] ^ 255]) + content[901:]
        path.write_bytes(
            {"cut": content[:-30], "start": content[:300], "flip": middle, "empty": b"", "text": b"no archive"}[damage]
        )
    with pytest.raises(ConfigError, match=r"real\.npz: expected an \.npz with pictures in arr_0"):
        reference_of_images(path, {})


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"size": [8]}, "does not describe itself as it should"),
        ({"size": "large"}, "does not describe itself as it should"),
        ({"networks": 3}, "does not describe itself as it should"),
        ({"name": None, "networks": {}}, "has no 'name'"),
    ],
)
def test_a_reference_that_describes_itself_badly(about, message, tmp_path):
    rows = {name: torch.ones(4, 3) for name in ("features", "spatial", "power")}
    side = Crops(rows, torch.arange(4), torch.tensor([0, 1, 0, 1]))
    whole = {"name": "made", "size": 8, "networks": {}} | about
    kept = {key: value for key, value in whole.items() if value is not None}
    save_reference(tmp_path / "r.safetensors", side, side, None, kept)
    with pytest.raises(CheckpointError, match=message):
        load_reference(tmp_path / "r.safetensors")


def test_what_is_no_reference(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read the reference"):
        load_reference(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="is no reference"):
        load_reference(small_network(tmp_path / "features.safetensors"))

"""The feature network and its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from made_scenes import CLASSES
from safetensors.torch import save_file

from hguide.errors import CheckpointError
from hguide.experiments.features import FeatureConfig, FeatureNetwork, load_features, save_features

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning and its dependencies warn about themselves.

# float16 storage of weights below 1 in size: 2^-11 relative, through a few layers.
HALF_TOLERANCE = 2e-2


def test_features_are_the_mean_of_their_map_and_scores_linear_in_them() -> None:
    torch.manual_seed(0)
    network = FeatureNetwork(FeatureConfig(classes=3)).eval()
    images = torch.rand(2, 3, 64, 64)
    features = network.features(images)
    assert features.shape == (2, 48)
    torch.testing.assert_close(features, network.feature_map(images).mean((2, 3)))
    torch.testing.assert_close(network(images), features @ network.head.weight.T + network.head.bias)


def test_feature_weights_survive_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = FeatureNetwork(FeatureConfig(classes=3)).eval()
    save_features(network, {"classes": list(CLASSES)}, tmp_path / "f.safetensors")
    loaded, metadata = load_features(tmp_path / "f.safetensors")
    images = torch.rand(2, 3, 64, 64)
    assert metadata["classes"] == list(CLASSES)
    torch.testing.assert_close(loaded(images), network(images), atol=HALF_TOLERANCE, rtol=HALF_TOLERANCE)


def test_bundled_features_are_small_and_know_how_good_they_are() -> None:
    from hguide.experiments.features import bundled_features

    network, metadata = load_features()
    assert network.config.features <= 64
    assert bundled_features().stat().st_size < 1_000_000
    assert metadata["training"]["test_accuracy"] >= 0.75
    assert len(metadata["classes"]) == network.config.classes == 21


def test_files_that_hold_no_features_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot read feature weights"):
        load_features(tmp_path / "broken.safetensors")


SHAPE = {"classes": 3, "features": 6, "widths": [4, 4, 4], "blocks": [1, 1, 1]}
NAMES = ["beach", "forest", "river"]


def small() -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureNetwork(FeatureConfig(classes=3, features=6, widths=(4, 4, 4), blocks=(1, 1, 1)))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{family", "cannot read feature weights from .*f.safetensors"),
        ("[" * 100_000, "cannot read feature weights from"),
        ("[1]", "names no family 'features'"),
        ({}, "no shape of the network under 'network', but None"),
        ({"network": [3]}, r"no shape of the network under 'network', but \[3\]"),
        ({"network": {"colour": 3}}, "unexpected keyword argument 'colour'"),
        (
            {"network": {**SHAPE, "widths": [4, 4]}, "classes": NAMES},
            r"a width and a number of blocks per level, got \(4, 4\), \(1, 1, 1\)",
        ),
        ({"network": {**SHAPE, "features": "six"}, "classes": NAMES}, "does not describe a feature network"),
        ({"network": {**SHAPE, "widths": []}, "classes": NAMES}, "does not describe a feature network"),
        ({"network": SHAPE}, "not the names of 3 classes under 'classes', but None"),
        ({"network": SHAPE, "classes": ["beach"]}, "not the names of 3 classes"),
        ({"network": {**SHAPE, "features": 10**12}, "classes": NAMES}, "3 wrong shape of"),
    ],
)
def test_metadata_that_describes_no_network(metadata: object, message: str, tmp_path: Path) -> None:
    text = metadata if isinstance(metadata, str) else json.dumps({"family": "features", **dict(metadata)})
    save_file(small().state_dict(), tmp_path / "f.safetensors", {"hguide": text})
    with pytest.raises(CheckpointError, match=message):
        load_features(tmp_path / "f.safetensors")


def test_all_keys_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = small().state_dict()
    state["tail.weight"] = state.pop("head.weight")
    state["project.bias"] = torch.zeros(7)
    text = json.dumps({"family": "features", "network": SHAPE, "classes": NAMES})
    save_file(state, tmp_path / "f.safetensors", {"hguide": text})
    with pytest.raises(CheckpointError) as caught:
        load_features(tmp_path / "f.safetensors")
    for part in (
        "f.safetensors: ",
        "missing: head.weight",
        "unexpected: tail.weight",
        "project.bias (expected 6, found 7",
    ):
        assert part in str(caught.value)


def test_weights_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.safetensors"
    save_features(small(), {"classes": NAMES}, path)
    before = path.read_bytes()

    def stopped(tensors: object, file: Path, metadata: object) -> None:
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_features(small(), {"classes": NAMES}, path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["f.safetensors"]

"""The feature network and its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_scenes import CLASSES

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

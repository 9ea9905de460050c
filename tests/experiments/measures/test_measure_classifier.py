"""Classifier score, class accuracy and features of many images."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hguide.errors import ConfigError, ShapeError
from hguide.experiments.features import FeatureConfig, FeatureNetwork
from hguide.experiments.measures.class_accuracy import ClassAccuracy, class_accuracy_statistic
from hguide.experiments.measures.classifier_score import (
    ClassifierScore,
    classifier_score,
    classifier_score_statistic,
)
from hguide.experiments.measures.features_of import features_of

EXACT = 1e-12
BATCHED = 1e-5  # float32 convolutions of other batch shapes
QUICK = settings(derandomize=True, deadline=None, max_examples=25)


def logits(seed: int, count: int = 50, classes: int = 7) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (count, classes)))


def test_score_agrees_with_scipy() -> None:
    p = scipy.special.softmax(logits(0).numpy(), 1)
    wanted = np.exp(np.mean([scipy.stats.entropy(row, p.mean(0)) for row in p]))
    assert classifier_score(logits(0)) == pytest.approx(wanted, rel=EXACT)


def test_score_at_its_ends() -> None:
    assert classifier_score(torch.eye(7).double() * 2000) == pytest.approx(7, rel=EXACT)
    assert classifier_score(logits(0)[:1].repeat(9, 1)) == pytest.approx(1, rel=EXACT)
    assert classifier_score(torch.zeros(5, 7)) == pytest.approx(1, rel=EXACT)


@given(st.integers(0, 10_000), st.integers(1, 6))
@QUICK
def test_parts_make_the_whole(seed: int, parts: int) -> None:
    scores = logits(seed)
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 7, 50))
    one, other = ClassifierScore(), ClassifierScore()
    right, left = ClassAccuracy(), ClassAccuracy()
    for part, (some, wanted) in enumerate(zip(scores.chunk(parts), labels.chunk(parts), strict=True)):
        (one if part % 2 else other).update(some)
        (right if part % 2 else left).update(some, wanted)
    one.merge(other)
    right.merge(left)
    assert one.count == right.count == 50
    assert one.compute() == pytest.approx(classifier_score(scores), rel=EXACT)
    assert right.compute() == np.mean(scores.numpy().argmax(1) == labels.numpy())
    weights = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, 50)).double()
    repeated = weights.long()
    none = torch.zeros(0).double()
    found = classifier_score_statistic(scores)(weights, none)
    assert found == pytest.approx(classifier_score(scores.repeat_interleave(repeated, 0)), rel=EXACT)
    hit = (scores.argmax(1) == labels).repeat_interleave(repeated)
    share = class_accuracy_statistic(scores, labels)(weights, none)
    assert share == pytest.approx(float(hit.double().mean()), rel=EXACT)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="at least one image"):
        ClassifierScore().compute()
    with pytest.raises(ConfigError, match="at least one image"):
        ClassAccuracy().compute()
    with pytest.raises(ConfigError, match="labels are 0 to 6, got 0 to 7"):
        ClassAccuracy().update(logits(0, 2), torch.tensor([0, 7]))
    score = ClassifierScore()
    score.update(logits(0))
    with pytest.raises(ShapeError, match="7 and of 6 dimensions"):
        score.update(logits(0, classes=6))
    score.reset()
    score.update(logits(0, classes=6))


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureNetwork(FeatureConfig(classes=3, features=4, widths=(4, 4, 4), blocks=(1, 1, 1))).eval()


def test_features_of_any_part_of_the_network(network: FeatureNetwork) -> None:
    images = torch.rand(7, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = network.features(images)
    for batch in (1, 3, 7, 100):
        torch.testing.assert_close(features_of(images, network.features, batch), wanted, rtol=BATCHED, atol=BATCHED)
    assert features_of(images, network.feature_map).shape == (7, 4, 4, 4)
    assert features_of(images, network).shape == (7, 3)
    assert not features_of(images, network).requires_grad


def test_bytes_are_divided_by_255(network: FeatureNetwork) -> None:
    pixels = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    assert torch.equal(features_of(pixels, network), features_of(pixels.float() / 255, network))


def test_features_are_refused_in_training_mode(network: FeatureNetwork) -> None:
    images = torch.rand(2, 3, 32, 32)
    with pytest.raises(ConfigError, match=r"FeatureNetwork is in training mode; call \.eval"):
        features_of(images, FeatureNetwork(network.config).train().features)
    with pytest.raises(ConfigError, match="got 0 and 256"):
        features_of(images[:0], network)

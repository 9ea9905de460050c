"""Decoding, split and crops of the scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_scenes import CLASSES, picture

from hguide.errors import ConfigError
from hguide.experiments.training import data

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning and its dependencies warn about themselves.


def test_decoding_equals_the_pictures_that_were_coded(coded: Path) -> None:
    scenes = data.load_scenes(coded, "train")
    expected = np.stack([picture(label, number) for label in range(3) for number in range(6)])
    assert np.array_equal(scenes.images.numpy(), expected)
    assert scenes.labels.tolist() == [label for label in range(3) for _ in range(6)]
    assert scenes.sources[0] == "beach00"


def test_hash_is_that_of_the_decoded_bytes(coded: Path) -> None:
    import hashlib

    expected = np.stack([picture(label, number) for label in range(3) for number in range(6, 9)])
    assert data.load_scenes(coded, "test").hash == hashlib.sha256(expected.tobytes()).hexdigest()


def test_archive_is_cropped_resized_and_split(archive: Path) -> None:
    from PIL import Image

    train, test = data.load_scenes(archive, "train"), data.load_scenes(archive, "test")
    assert train.classes == CLASSES
    assert len(train.labels) == 24
    assert len(test.labels) == 6
    assert not set(train.sources) & set(test.sources)
    both = dict(zip(train.sources + test.sources, torch.cat([train.images, test.images]), strict=True))
    odd = Image.fromarray(picture(1, 3, 130)[:130, :120]).crop((0, 5, 120, 125))
    assert np.array_equal(both["forest03"].numpy(), np.asarray(odd.resize((96, 96), Image.Resampling.LANCZOS)))


def test_split_is_the_documented_one() -> None:
    names = ("agricultural", "airplane", "baseballdiamond")
    test = data.split_files([[f"{name}{i:02d}" for i in range(100)] for name in names], "test")
    train = data.split_files([[f"{name}{i:02d}" for i in range(100)] for name in names], "train")
    numbers = [sorted(int(stem[-2:]) for stem in side) for side in test]
    assert numbers[0] == [2, 7, 8, 13, 16, 22, 24, 26, 30, 33, 53, 54, 55, 73, 75, 78, 86, 92, 93, 95]
    assert numbers[1] == [3, 7, 8, 9, 11, 14, 17, 19, 20, 31, 62, 65, 72, 73, 76, 80, 83, 86, 87, 94]
    assert numbers[2] == [6, 12, 13, 14, 15, 19, 22, 30, 42, 55, 56, 57, 60, 70, 71, 74, 78, 79, 80, 84]
    assert train[1] >= data.IDENTICAL
    assert all(not a & b and len(a | b) == 100 for a, b in zip(test, train, strict=True))


def test_a_folder_without_scenes_says_what_it_wants(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no land-use scenes .*expected train\.npz"):
        data.load_scenes(tmp_path, "train")


def test_crops_come_from_their_scene_and_repeat_with_the_counter(coded: Path) -> None:
    scenes = data.load_scenes(coded, "train")
    crops, labels, index = data.random_crops(scenes, 12, 8, seed=3, counter=7)
    again, other = (data.random_crops(scenes, 12, 8, seed=3, counter=c)[0] for c in (7, 8))
    assert torch.equal(crops, again)
    assert not torch.equal(crops, other)
    assert torch.equal(labels, scenes.labels[index])
    for crop, scene in zip(crops, scenes.images[index], strict=True):
        windows = scene.permute(2, 0, 1).unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4)
        turned = [torch.rot90(crop, k, (1, 2)) for k in range(4)]
        turned += [each.flip(2) for each in turned]
        assert any((windows == each).all((2, 3, 4)).any() for each in turned)


def test_symmetries_are_eight_different_ones() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3).expand(8, 1, 3, 3)
    turned = data.symmetries(image, torch.arange(8))
    expected = {
        tuple(torch.rot90(m, k, (0, 1)).flatten().tolist()) for k in range(4) for m in (image[0, 0], image[0, 0].t())
    }
    assert {tuple(each.flatten().tolist()) for each in turned} == expected


def test_crops_larger_than_a_scene_are_refused(coded: Path) -> None:
    with pytest.raises(ConfigError, match="a crop of 97 pixels"):
        data.random_crops(data.load_scenes(coded, "train"), 1, 97, 0, 0)

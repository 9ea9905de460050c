"""Scenes and a tokenizer for the trainings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_scenes import CLASSES, code_differences, picture, small_tokenizer


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six train scenes and three test scenes a class, difference coded."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    for split, numbers in (("train", range(6)), ("test", range(6, 9))):
        rows = [(label, number) for label in range(len(CLASSES)) for number in numbers]
        np.savez(
            folder / f"{split}.npz",
            coded=code_differences(np.stack([picture(*row) for row in rows])),
            labels=np.array([label for label, _ in rows], np.uint8),
            source=np.array([f"{CLASSES[label]}{number:02d}".encode() for label, number in rows]),
        )
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of ten TIFFs each, as the published archive has them."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("archive")
    for label, name in enumerate(CLASSES):
        (folder / "Images" / name).mkdir(parents=True)
        for number in range(10):
            size = (130, 120) if number == 3 else (128, 128)
            scene = Image.fromarray(picture(label, number, 130)[: size[0], : size[1]])
            scene.save(folder / "Images" / name / f"{name}{number:02d}.tif")
    return folder


@pytest.fixture(scope="module")
def tokenizer_file(coded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hguide.experiments.training.tokenizer import run

    return run(small_tokenizer(coded, tmp_path_factory.mktemp("tokenizer")))

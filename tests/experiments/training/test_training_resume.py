"""The same command again: finished, with other options, with a damaged checkpoint, interrupted."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from made_bits import small_bsq, small_infinity
from made_codes import small_vq_diffusion, small_vqgan
from made_hart import small_hart
from made_scenes import small_tokenizer

from hguide.cli import main
from hguide.errors import CheckpointError, ConfigError
from hguide.experiments.training import (
    bsq_tokenizer,
    features,
    generator,
    hart,
    infinity,
    tokenizer,
    vq_diffusion,
    vqgan_tokenizer,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning and its dependencies warn about themselves.


def small_features(coded: Path, out: Path) -> features.FeaturesConfig:
    return features.FeaturesConfig(
        data=str(coded), out=str(out), accelerator="cpu", steps=3, epoch_steps=2, checkpoint_steps=2, batch_size=6,
        crop=32, widths=(8, 8, 8), blocks=(1, 1, 1), precision="32-true",
    )  # fmt: skip


def small_generator(coded: Path, out: Path, tokenizer_file: Path) -> generator.GeneratorTrainingConfig:
    return generator.GeneratorTrainingConfig(
        data=str(coded), out=str(out), tokenizer=str(tokenizer_file), accelerator="cpu", optimizer="muon", steps=2,
        epoch_steps=2, batch_size=4, crop=16, width=16, depth=1, heads=2, token_crops=8, precision="32-true",
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def trained(coded: Path, tmp_path: Path) -> features.FeaturesConfig:
    config = small_features(coded, tmp_path / "out")
    features.run(config)
    return config


def job(kind: str, coded: Path, out: Path, tokenizer_file: Path) -> Callable[[], Path]:
    """A small training of each kind; those of generators on a tokenizer that is trained first."""
    if kind == "features":
        return partial(features.run, small_features(coded, out))
    if kind == "tokenizer":
        return partial(tokenizer.run, small_tokenizer(coded, out))
    if kind == "generator":
        return partial(generator.run, small_generator(coded, out, tokenizer_file))
    if kind == "hart":
        return partial(hart.run, small_hart(coded, tokenizer_file, out))
    if kind == "infinity":
        bits = bsq_tokenizer.run(small_bsq(coded, out / "bits"))
        return partial(infinity.run, small_infinity(coded, out / "infinity", bits))
    codes = vqgan_tokenizer.run(small_vqgan(coded, out / "codes"))
    return partial(vq_diffusion.run, small_vq_diffusion(coded, out / "vq", codes))


@pytest.mark.parametrize("kind", ["features", "tokenizer", "generator", "hart", "infinity", "vq-diffusion"])
def test_a_finished_training_is_left_as_it_is(
    kind: str, coded: Path, tokenizer_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = job(kind, coded, tmp_path, tokenizer_file)
    again()
    before = contents(tmp_path)
    capsys.readouterr()
    job(kind, coded, tmp_path, tokenizer_file)()
    assert contents(tmp_path) == before
    assert f"nothing left to train: {tmp_path}" in capsys.readouterr().err


def test_the_last_line_of_metrics_is_made_up_for(trained: features.FeaturesConfig) -> None:
    """A run killed after its last checkpoint and before the report."""
    file = Path(trained.out) / "metrics.jsonl"
    wanted = file.read_text().splitlines()[-1]
    file.write_text("")
    features.run(trained)
    assert file.read_text().splitlines() == [wanted]


def test_a_training_may_go_on_for_longer(trained: features.FeaturesConfig) -> None:
    features.run(replace(trained, steps=5, threads=1, epoch_steps=1))
    lines = (Path(trained.out) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 3, 4, 5]


def test_the_seed_tells_the_first_weights(coded: Path, tmp_path: Path) -> None:
    config = small_features(coded, tmp_path)
    one, same, other = (
        features.FeaturesTraining(each).network.state_dict() for each in (config, config, replace(config, seed=1))
    )
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one[next(iter(one))], other[next(iter(one))])


def test_other_options_are_refused_before_anything_is_written(
    coded: Path, tokenizer_file: Path, tmp_path: Path
) -> None:
    config = small_generator(coded, tmp_path, tokenizer_file)
    generator.run(config)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="depth was 1 and is 2; token_crops was 8 and is 9. Give the old values"):
        generator.run(replace(config, depth=2, token_crops=9))
    assert contents(tmp_path) == before


def test_files_that_changed_behind_their_names_are_refused(coded: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(coded, data)
    pictures = tokenizer.run(small_tokenizer(data, tmp_path / "t"))
    config = small_generator(data, tmp_path / "g", pictures)
    generator.run(config)
    before = pictures.read_bytes()
    shutil.rmtree(tmp_path / "t")
    tokenizer.run(small_tokenizer(data, tmp_path / "t", seed=1))
    with pytest.raises(CheckpointError, match="trained on the tokens of another tokenizer than now. Delete it"):
        generator.run(config)
    pictures.write_bytes(before)
    np.savez(data / "train.npz", **{**np.load(data / "train.npz"), "coded": np.load(data / "train.npz")["coded"][::-1]})
    with pytest.raises(CheckpointError, match="trained on other scenes than those of data now. Delete it"):
        generator.run(config)


def test_damaged_checkpoints_are_told_from_others(trained: features.FeaturesConfig) -> None:
    last = Path(trained.out) / "last.ckpt"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cut short.*Delete it to start anew, or choose another --out"):
        features.run(trained)
    torch.save({"state_dict": {}}, last)
    with pytest.raises(CheckpointError, match="not a checkpoint of `hguide train`"):
        features.run(trained)
    last.write_bytes(whole)
    options = Path(trained.out) / "config.json"
    options.write_text(options.read_text()[:20])
    with pytest.raises(ConfigError, match="options of this training are damaged"):
        features.run(trained)
    options.unlink()
    with pytest.raises(CheckpointError, match="of another network than the options describe.*\n.*wrong shape"):
        features.run(replace(trained, features=16))


def test_an_interruption_ends_with_130(
    coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: features.FeaturesTraining, step: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(features.FeaturesTraining, "loss", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert main(["train", "features", "--data", str(coded), "--out", str(tmp_path), "--accelerator", "cpu"]) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert "interrupted" in capsys.readouterr().err

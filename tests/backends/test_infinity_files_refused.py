"""Infinity files that cannot be loaded, each with one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_infinity import TOKENIZER_FILE, State, official_tokenizer, official_transformer, write_shards
from safetensors.torch import save_file
from tiny_infinity import SQUARE, tiny_infinity

import hguide
from hguide.backends.infinity import Infinity
from hguide.backends.infinity.files import load_single
from hguide.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def model() -> Infinity:
    # Sixteen bits per token: the tokenizer beside it has a published name.
    return tiny_infinity(True)


@pytest.fixture
def folder(model: Infinity, tmp_path: Path) -> Path:
    """The published pair of files."""
    torch.save(official_transformer(model), tmp_path / "infinity_tiny.pth")
    vae = {"vae": official_tokenizer(model, long=True), "ema": {"encoder.conv_in.conv.weight": torch.zeros(1)}}
    torch.save(vae, tmp_path / TOKENIZER_FILE)
    return tmp_path


def test_a_missing_shard(model: Infinity, folder: Path) -> None:
    index = write_shards(folder / "infinity_8b_weights", official_transformer(model), ".bin")
    (index.parent / "model-00002-of-00002.bin").unlink()
    with pytest.raises(CheckpointError, match=r"1 of 2 shards are missing.*model-00002-of-00002.bin") as error:
        hguide.load(index.parent)
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="no such file"):
        hguide.load(index.parent / "other.index.json", family="infinity")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file(model: Infinity, folder: Path, suffix: str) -> None:
    path = folder / f"infinity_cut{suffix}"
    state = official_transformer(model)
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=f"infinity_cut{suffix}: damaged, cut short") as error:
        hguide.load(path, family="infinity")
    assert "\n" not in str(error.value)
    pictures = folder / TOKENIZER_FILE
    pictures.write_bytes(pictures.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=f"{TOKENIZER_FILE}: damaged, cut short"):
        hguide.load(folder / "infinity_tiny.pth")


def changed(folder: Path, change: Callable[[State], Any]) -> Path:
    path = folder / "infinity_changed.pth"
    state = torch.load(folder / "infinity_tiny.pth", weights_only=True)
    change(state)
    torch.save(state, path)
    return path


def test_missing_unexpected_and_misshapen_weights(folder: Path) -> None:
    def change(state: State) -> None:
        del state["head_nm.ada_lin.1.bias"]
        state["block_chunks.1.module.0.ffn.fc1.bias"] = torch.zeros(3)
        state["extra"] = torch.zeros(1)

    with pytest.raises(CheckpointError, match="infinity_changed.pth: The weights do not fit the model") as error:
        hguide.load(changed(folder, change))
    for part in ("missing: head_nm.ada_lin.1.bias", "unexpected: extra", "blocks.1.ffn.fc1.bias"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("cfg_uncond"), "not the weights of an Infinity transformer: 'cfg_uncond' is missing"),
        (lambda s: s["block_chunks.0.module.0.sa.zero_k_bias"].add_(1), "zero_k_bias is not zero"),
        (lambda s: s.update({"cfg_uncond": torch.zeros(3)}), "'cfg_uncond' .* has 2 dimensions, found"),
        (lambda s: s.update({"block_chunks.1.module.5.ada_gss": torch.zeros(1)}), "has 3 blocks, which 2 chunks of 6"),
    ],
)
def test_transformers_that_are_none(folder: Path, change: Callable[[State], Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        hguide.load(changed(folder, change))
    assert "\n" not in str(error.value)


def test_other_families(folder: Path, tmp_path: Path) -> None:
    var = Path(__file__).parents[1] / "golden" / "var" / "adaln"
    with pytest.raises(CheckpointError, match="not the weights of an Infinity transformer: 'cfg_uncond' is missing"):
        hguide.load(var / "weights_var.safetensors", family="infinity")
    with pytest.raises(CheckpointError, match="not the weights of an Infinity tokenizer: .* a codebook or attention"):
        hguide.load(folder / "infinity_tiny.pth", tokenizer=var / "weights_vae.safetensors")
    with pytest.raises(CheckpointError, match="not the weights of an Infinity tokenizer: 'encoder.conv_in.weight'"):
        hguide.load(folder / "infinity_tiny.pth", tokenizer=folder / "infinity_tiny.pth")
    save_file({"a": torch.zeros(1)}, tmp_path / "o.safetensors", {"hguide": json.dumps({"family": "var"})})
    with pytest.raises(CheckpointError, match="of the family 'var', asked for 'infinity'"):
        hguide.load(tmp_path / "o.safetensors", family="infinity")
    save_file({"a": torch.zeros(1)}, tmp_path / "o.safetensors", {"hguide": json.dumps({"family": "infinity"})})
    with pytest.raises(CheckpointError, match="its description does not fit an Infinity model"):
        load_single(tmp_path / "o.safetensors")


def test_a_missing_or_mismatched_tokenizer(model: Infinity, folder: Path) -> None:
    (folder / TOKENIZER_FILE).rename(folder / "vae.pth")
    with pytest.raises(
        CheckpointError, match=r"its tokenizer \(infinity_vae_d16.pth\) is not beside it: pass tokenizer="
    ):
        hguide.load(folder / "infinity_tiny.pth")
    with pytest.raises(CheckpointError, match="no such file"):
        hguide.load(folder / "infinity_tiny.pth", tokenizer=folder / "absent.pth")
    other = tiny_infinity(bits=6)
    torch.save({"vae": official_tokenizer(other, long=True)}, folder / "six.pth")
    with pytest.raises(CheckpointError, match="16 bits per token, the tokenizer 6: they were not trained together"):
        hguide.load(folder / "infinity_tiny.pth", tokenizer=folder / "six.pth")


def test_options_that_exclude_each_other(folder: Path) -> None:
    with pytest.raises(ConfigError, match="give a schedule, or size and aspect, not both"):
        hguide.load(folder / "infinity_tiny.pth", schedule=SQUARE, size="1M")

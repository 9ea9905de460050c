"""`hguide.load`: what a name or path means, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import hguide
from hguide.backends.checkpoints import read_metadata, read_state_dict, save_safetensors
from hguide.backends.var.files import save
from hguide.errors import CheckpointError, ConfigError
from hguide.load import bundled_path, family_of


def test_the_home_folder_is_found_before_the_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(bundled_path("landuse-hart"), tmp_path / "mine.safetensors")
    assert family_of("~/mine.safetensors") == "hart"
    assert type(hguide.load("~/mine.safetensors")).__name__ == "HART"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, 'device is "cpu", "cuda", "mps" or a torch.device, got \'gpu\''),
        ({"device": None}, "device is .*, got None"),
        ({"dtype": "float16"}, "dtype is a floating type, for instance torch.bfloat16, got 'float16'"),
        ({"dtype": torch.int8}, "dtype is a floating type.*got torch.int8"),
        ({"family": "hart"}, "landuse-var is a model of the family 'var', asked for 'hart'"),
    ],
)
def test_options_of_the_bundled_model(options: dict[str, Any], message: str, unchecked_types: None) -> None:
    with pytest.raises(ConfigError, match=message):
        hguide.load("landuse-var", **options)


def test_the_toy_stays_on_the_cpu_and_takes_no_dtype() -> None:
    assert hguide.load("toy", device="meta").device.type == "cpu"
    with pytest.raises(ConfigError, match="toy takes no dtype: it computes in its own, asked for torch.bfloat16"):
        hguide.load("toy", dtype=torch.bfloat16)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_cuda_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="device 'cuda': PyTorch sees no CUDA device here"):
        hguide.load("landuse-var", device="cuda")


@pytest.mark.parametrize("facts", [[1], "abc", 3])
def test_a_description_that_is_no_mapping(facts: object, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_safetensors(path, {"x": torch.zeros(1)}, {"hguide": json.dumps(facts)})
    with pytest.raises(CheckpointError, match="its description is damaged: a mapping was expected"):
        hguide.load(path)


@pytest.mark.parametrize("owner", ["../../etc/passwd", "a/b"])
def test_a_tokenizer_of_another_folder_is_not_read(owner: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save(hguide.load("landuse-var"), path, tokenizer_of="landuse-var")
    tensors = read_state_dict(path)
    facts = json.loads(read_metadata(path)["hguide"]) | {"tokenizer_of": owner}
    save_safetensors(path, tensors, {"hguide": json.dumps(facts)})
    with pytest.raises(CheckpointError, match="its description is damaged: .* is no name of a model"):
        hguide.load(path)


def test_a_file_that_is_no_transformer_is_told_so_before_its_tokenizer_is_asked_for(tmp_path: Path) -> None:
    torch.save({"something": torch.zeros(2)}, tmp_path / "foreign.pth")
    (tmp_path / "empty.pth").touch()
    with pytest.raises(CheckpointError, match="pos_start"):
        hguide.load(tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match="damaged, cut short or no weights file"):
        hguide.load(tmp_path / "empty.pth")


@pytest.mark.parametrize("given", ["1_2_3", (), [1, 2.0], [True, 2], [0, 1], 7])
@pytest.mark.parametrize("family", ["var", "hart", "switti"])
def test_patch_nums_are_the_sides_of_the_maps(
    family: str, given: object, tmp_path: Path, unchecked_types: None
) -> None:
    """Told before anything is read."""
    with pytest.raises(ConfigError, match=r"patch_nums is the side of each scale's map, for instance \(1, 2, 3, 4\)"):
        hguide.load(tmp_path / "missing.safetensors", family=family, patch_nums=given)

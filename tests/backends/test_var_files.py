"""VAR files: how much memory loading takes, and what stands in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loading_memory import memory_of_loading, reads_proc
from safetensors.torch import load_file, save_file

import hguide
from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.var import VAR, TokenizerConfig, TransformerConfig, VARTokenizer, VARTransformer
from hguide.backends.var.files import save
from hguide.backends.var.official_buffers import official_buffers
from hguide.errors import CheckpointError

SIDES = (1, 2, 4)


def model(width: int, **changes: int) -> VAR:
    sizes = {"depth": 2, "heads": width // 32, "classes": 3, "vocabulary": 16, "latent_channels": 4, **changes}
    pictures = TokenizerConfig(AutoencoderConfig(32, (1, 1), blocks=1, latent_channels=4), 16, SIDES)
    transformer = TransformerConfig(patch_nums=SIDES, width=width, **sizes)
    return VAR(VARTransformer(transformer), VARTokenizer(pictures), name="sized")


@pytest.mark.slow
@reads_proc
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_loading_our_file_takes_the_memory_of_the_weights(tmp_path: Path, dtype: str) -> None:
    """58 MB of weights in float32."""
    stored = getattr(torch, dtype)
    save(model(32), tmp_path / "small.safetensors", dtype=stored)
    save(model(768), tmp_path / "large.safetensors", dtype=stored)
    taken, weights = memory_of_loading(
        tmp_path / "small.safetensors", tmp_path / "large.safetensors", f"dtype=torch.{dtype}"
    )
    # The tokenizer's few weights are float32 in any case.
    assert weights == pytest.approx((tmp_path / "large.safetensors").stat().st_size, rel=0.02)
    assert 0.9 * weights < taken < 1.1 * weights


@pytest.mark.slow
@reads_proc
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_the_published_pair_takes_the_memory_of_the_weights(tmp_path: Path, dtype: str) -> None:
    """Buffers of training, which the published files carry, are left out."""
    for name, width in (("small", 64), ("large", 768)):
        (tmp_path / name).mkdir()
        made = model(width, heads=width // 64)
        state = dict(made.transformer.state_dict())
        state |= {key: torch.zeros(shape) for key, shape in official_buffers(made.transformer.config).items()}
        lengths = made.transformer.config.lengths
        state["lvl_1L"] = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
        torch.save(state, tmp_path / name / "var_d2.pth")
        torch.save(made.tokenizer.state_dict(), tmp_path / name / "vae_ch160v4096z32.pth")
    small, large = (tmp_path / name / "var_d2.pth" for name in ("small", "large"))
    taken, weights = memory_of_loading(small, large, f"dtype=torch.{dtype}")
    assert 0.9 * weights < taken < 1.1 * weights


def test_halves_are_loaded_as_what_is_asked_for(tmp_path: Path) -> None:
    made, path = model(32), tmp_path / "half.safetensors"
    save(made, path, dtype=torch.float16)
    wanted = made.transformer.head.weight.half()
    whole, half = hguide.load(path), hguide.load(path, dtype=torch.float16)
    assert torch.equal(whole.transformer.head.weight, wanted.float())
    assert torch.equal(half.transformer.head.weight, wanted)
    assert {value.dtype for value in half.transformer.state_dict().values()} == {torch.float16}
    assert {value.dtype for value in half.tokenizer.state_dict().values()} == {torch.float32}


def test_entries_of_no_part_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save(model(32), path)
    state, facts = load_file(path), {"hguide": _description(path)}
    save_file({**state, "head.weight": torch.zeros(1)}, path, facts)
    with pytest.raises(CheckpointError, match=r"entries of no part .*\(transformer, tokenizer\): head\.weight"):
        hguide.load(path)


def _description(path: Path) -> str:
    from hguide.backends.checkpoints import read_metadata

    return read_metadata(path)["hguide"]

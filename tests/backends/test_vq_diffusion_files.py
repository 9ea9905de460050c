"""Files of VQ-Diffusion: our own, official checkpoints, and what is wrong with bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loading_memory import memory_of_loading, reads_proc
from published_vq_diffusion import (
    GRID,
    WIDE,
    assert_same,
    official_denoiser,
    official_model,
    official_tokenizer,
    whole_model,
)
from safetensors.torch import save_file
from tiny_vq_diffusion import CODES, text, tiny_tokenizer_config, tiny_vq_diffusion

import hguide
from hguide.backends.vq_diffusion import VQGAN, VQDiffusion, files
from hguide.backends.vq_diffusion.codebook_map import codes_in_use
from hguide.errors import CheckpointError, ConfigError
from hguide.load import bundled_path


@pytest.mark.parametrize("condition", ["class", "text"])
def test_our_file_holds_the_model(condition: str, tmp_path: Path) -> None:
    model = tiny_vq_diffusion(condition)
    files.save(model, tmp_path / "m.safetensors", facts={"note": "x"})
    found = hguide.load(tmp_path / "m.safetensors")
    assert isinstance(found, VQDiffusion)
    assert_same(found, model)
    assert found.name == "tiny"
    assert found.class_names == model.class_names
    files.save(model, tmp_path / "half.safetensors", dtype=torch.float16)
    half = files.load(tmp_path / "half.safetensors", dtype=torch.bfloat16)
    assert half.denoiser.to_logits[1].weight.dtype == torch.bfloat16
    assert half.tokenizer.decoder.conv_in.weight.dtype == torch.float32
    given = 1 if condition == "class" else text(0)
    assert hguide.generate(half, given, "cfg(w=2.0)", seeds=[0]).isfinite().all()


def test_what_a_file_says_itself_is_not_told_again(tmp_path: Path) -> None:
    files.save(tiny_vq_diffusion(), tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match="says itself what its tokenizer and heads is"):
        files.load(tmp_path / "m.safetensors", tokenizer="x.pth", heads=2)


def test_code_numbers_stay_whole_in_half_precision(tmp_path: Path) -> None:
    model = tiny_vq_diffusion(codes=CODES)
    model.tokenizer.codes = torch.arange(CODES) + 4001
    files.save(model, tmp_path / "m.safetensors", dtype=torch.float16)
    assert torch.equal(files.load(tmp_path / "m.safetensors").tokenizer.codes, torch.arange(CODES) + 4001)


# Official checkpoints


@pytest.mark.parametrize("learned", [True, False])
def test_official_class_checkpoint_gives_the_averaged_weights(learned: bool, tmp_path: Path) -> None:
    classes = 1000 if learned else 7
    model = official_model(classes=classes, learned_null=learned)
    other = {key: value + 1.0 for key, value in whole_model(model).items() if key.startswith("transformer.transformer")}
    path = tmp_path / "imagenet_pretrained.pth"
    content = {"last_epoch": 99, "model": whole_model(model) | other, "ema": official_denoiser(model)}
    torch.save(
        content | {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}}, path
    )
    found = hguide.load(path, heads=2, grid=GRID)
    assert isinstance(found, VQDiffusion)
    assert_same(found, model)


@pytest.mark.parametrize(("kind", "assignment"), [("vq", "nearest"), ("ema", "nearest"), ("gumbel", "logits")])
def test_official_text_checkpoint_of_the_whole_model(kind: str, assignment: str, tmp_path: Path) -> None:
    model = official_model("text", assignment)
    torch.save({"model": whole_model(model, kind)}, tmp_path / "ithq_learnable.pth")
    found = files.load(tmp_path / "ithq_learnable.pth", heads=2, grid=GRID)
    assert_same(found, model)


def test_grid_of_a_text_checkpoint_is_told_by_its_masks(tmp_path: Path) -> None:
    model = official_model("text", grid=(3, 3))
    torch.save({"model": whole_model(model)}, tmp_path / "m.pth")
    assert files.load(tmp_path / "m.pth", heads=2).denoiser.config.grid == (3, 3)


@pytest.mark.parametrize("kind", ["vq", "ema"])
def test_tokenizer_of_its_own_file(kind: str, tmp_path: Path) -> None:
    model = official_model(learned_null=False)
    torch.save({"ema": official_denoiser(model)}, tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match=r"bare.pth: holds a denoiser and no tokenizer: pass tokenizer=PATH"):
        files.load(tmp_path / "bare.pth", heads=2, grid=GRID)
    wrapped = {"vq": "state_dict", "ema": "model"}[kind]
    state = official_tokenizer(model.tokenizer, kind) | {"loss.perceptual.weight": torch.zeros(2)}
    state |= (
        {"quantize.cluster_size": torch.zeros(2), "quantize.embedding_avg": torch.zeros(2)} if kind == "ema" else {}
    )
    torch.save({wrapped: state}, tmp_path / "vqgan.pth")
    assert_same(files.load(tmp_path / "bare.pth", tokenizer=tmp_path / "vqgan.pth", heads=2, grid=GRID), model)


def test_tokenizer_that_only_decodes(tmp_path: Path) -> None:
    tokenizer = official_model().tokenizer
    kept = {k: v for k, v in official_tokenizer(tokenizer).items() if not k.startswith(("encoder", "quant_conv"))}
    torch.save(kept, tmp_path / "decoder.pth")
    found = files.load_tokenizer(tmp_path / "decoder.pth")
    assert not found.config.encoder
    codes = torch.zeros(1, *GRID, dtype=torch.int64)
    assert torch.allclose(found.decode(codes), tokenizer.eval().decode(codes), atol=1e-6)


def test_published_tables_are_applied(tmp_path: Path) -> None:
    sizes = tiny_tokenizer_config(autoencoder=WIDE, vocabulary=16384, codes=16384, code_channels=2)
    torch.save(official_tokenizer(VQGAN(sizes)), tmp_path / "f16.pth")
    found = files.load_tokenizer(tmp_path / "f16.pth", 974)
    assert torch.equal(found.codes, codes_in_use(974, 16384))
    with pytest.raises(
        CheckpointError, match=r"f16.pth: the denoiser has 2887 codes and the tokenizer 16384: there is no"
    ):
        files.load_tokenizer(tmp_path / "f16.pth", 2887)


# What is wrong with files


def test_unused_masks_are_never_read(tmp_path: Path) -> None:
    state = official_denoiser(official_model("text"))
    # 1 TB if it were made: an expanded zero stands for it.
    state["transformer.blocks.0.attn2.mask"] = torch.zeros(1, 1, 1, 1).expand(1, 1, 1 << 19, 1 << 19)
    from hguide.backends.vq_diffusion.official_keys import denoiser_weights, mask_length

    assert mask_length(state) == 1 << 19
    assert not any("mask" in key for key in denoiser_weights(state))


def test_another_schedule_is_refused(tmp_path: Path) -> None:
    model = official_model()
    state = official_denoiser(model)
    state["log_cumprod_ct"] = state["log_cumprod_ct"] + 0.01
    torch.save({"ema": state, "model": whole_model(model)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"m.pth: log_cumprod_ct is not that of the schedule 'alpha1'"):
        files.load(tmp_path / "m.pth", heads=2, grid=GRID)


def test_wrong_families(tmp_path: Path) -> None:
    save_file({"pos_start": torch.zeros(1, 1, 4)}, tmp_path / "var.safetensors")
    with pytest.raises(CheckpointError, match=r"var.safetensors: These are not the weights of a VQ-Diffusion denoiser"):
        files.load(tmp_path / "var.safetensors")
    torch.save({"state_dict": {"encoder.conv_in.weight": torch.zeros(3)}}, tmp_path / "t.pth")
    with pytest.raises(
        CheckpointError, match=r"t.pth: These are not the weights of a VQGAN: .*embedding.weight' is missing"
    ):
        files.load_tokenizer(tmp_path / "t.pth")
    with pytest.raises(CheckpointError, match="describes a model of the family 'var', asked for 'vq_diffusion'"):
        files.load(bundled_path("landuse-var"))


def test_missing_and_cut_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="absent.pth: no such file"):
        files.load(tmp_path / "absent.pth")
    for part in "ab":
        (tmp_path / f"imagenet_learnable.pth_a{part}").write_bytes(b"x")
    joined = (
        r"released in parts \(imagenet_learnable.pth_aa, imagenet_learnable.pth_ab\); join them all first: cat imagen"
    )
    with pytest.raises(CheckpointError, match=joined):
        hguide.load(tmp_path / "imagenet_learnable.pth")
    with pytest.raises(CheckpointError, match="released in parts.*cat imagenet_learnable.pth_"):
        hguide.load(tmp_path / "imagenet_learnable.pth_aa")
    torch.save({"ema": official_denoiser(official_model())}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cut.pth: damaged, cut short or no weights file"):
        files.load(tmp_path / "cut.pth")


def test_missing_weights_are_listed(tmp_path: Path) -> None:
    model = official_model()
    state = official_denoiser(model)
    del state["transformer.blocks.0.attn.key.bias"]
    torch.save({"ema": state, "model": whole_model(model)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"missing: blocks.0.attn.key.bias"):
        files.load(tmp_path / "m.pth", heads=2, grid=GRID)


# Memory


@pytest.mark.slow
@reads_proc
def test_loading_takes_the_memory_of_the_weights(tmp_path: Path) -> None:
    """70 MB of weights in a file that holds them twice, beside an optimiser's 70 MB and 64 MB of masks."""
    torch.save({"model": whole_model(official_model("text"))}, tmp_path / "small.pth")
    model = official_model("text", width=768, depth=2)
    averaged = official_denoiser(model)
    averaged["transformer.blocks.0.attn2.mask"] = torch.ones(1, 1, 4096, 4096)
    moments = {0: {"exp_avg": torch.zeros(70 << 18)}}
    torch.save({"model": whole_model(model), "ema": averaged, "optimizer": {"state": moments}}, tmp_path / "large.pth")
    options = "family='vq_diffusion', heads=2, grid=(3, 4)"
    taken, weights = memory_of_loading(tmp_path / "small.pth", tmp_path / "large.pth", options)
    assert 0.9 * weights < taken < 1.1 * weights

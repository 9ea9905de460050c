"""The VAR tokenizer against values recorded from the official program, and against independent arithmetic."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.tokenizer_hash import tokenizer_hash
from hguide.backends.var.tokenizer import TokenizerConfig, VARTokenizer
from hguide.errors import ConfigError, ShapeError

GOLDEN = Path(__file__).parents[1] / "golden" / "var"

# Absolute, float32 on the CPU; rounding of another order of sums reaches a tenth of these.
LATENT = 1e-5
IMAGE = 1e-4

SMALL = TokenizerConfig(AutoencoderConfig(32, (1, 1, 2), 1, 8), 64, (1, 2, 3, 5))


@pytest.fixture(scope="module")
def tokenizer():
    module = VARTokenizer(SMALL).eval()
    module.load_state_dict(load_file(GOLDEN / "adaln" / "weights_vae.safetensors"))
    return module.requires_grad_(False)


@pytest.fixture(scope="module")
def case():
    return load_file(GOLDEN / "adaln" / "vae_case.safetensors")


def close(value, wanted, tolerance):
    torch.testing.assert_close(value, wanted, atol=tolerance, rtol=0)


# Recorded values


def test_state_dict_of_the_published_size_has_the_official_names_and_shapes():
    with torch.device("meta"):
        module = VARTokenizer(TokenizerConfig())
    manifest = json.loads((GOLDEN / "manifest_vae.json").read_text())
    del manifest["quantize.ema_vocab_hit_SV"]
    assert {name: list(value.shape) for name, value in module.state_dict().items()} == manifest


def test_encoding_matches(tokenizer, case):
    f = tokenizer.latent(case["image"])
    tokens, latents = tokenizer.quantize.encode_with_latents(f, SMALL.grids)
    close(f, case["f"], LATENT)
    for k, side in enumerate(SMALL.patch_nums):
        assert tokens[k].shape == (2, side, side)
        assert tokens[k].flatten(1).equal(case[f"s{k}.tokens"])
        close(latents[k], case[f"s{k}.f_hat"], LATENT)
    for mine, other in zip(tokenizer.encode(case["image"]), tokens, strict=True):
        assert mine.equal(other)


def test_decoding_matches(tokenizer, case):
    tokens = [case[f"s{k}.tokens"].view(-1, *grid) for k, grid in enumerate(SMALL.grids)]
    close(tokenizer.decode_latent(case["s3.f_hat"]), case["recon"], IMAGE)
    close(tokenizer.decode_latent(case["f"]), case["decode_f"], IMAGE)
    close(tokenizer.decode(tokens), case["recon_from_tokens"], IMAGE)
    close(tokenizer.decode(tokens[:2]), tokenizer.decode_latent(case["s1.f_hat"]), IMAGE)
    close(tokenizer.quantize.var_input(tokens, SMALL.grids), case["var_input"], LATENT)


def test_another_schedule_matches(tokenizer, case):
    grids = ((1, 1), (3, 3), (5, 5))
    tokens = tokenizer.encode(case["image"], grids)
    for k, each in enumerate(tokens):
        assert each.flatten(1).equal(case[f"sub{k}.tokens"])
    close(tokenizer.quantize.accumulate(tokens, grids), case["sub.f_hat_last"], LATENT)


def test_gradient_through_the_decoder_matches(tokenizer, case):
    f_hat = case["s3.f_hat"].clone().requires_grad_()
    loss = 100 * (tokenizer.decode_latent(f_hat) * case["grad_w"]).mean()
    loss.backward()
    close(loss.detach(), case["grad_loss"], IMAGE)
    close(f_hat.grad, case["grad_f_hat"], IMAGE)


@pytest.mark.parametrize("run", ["adaln", "saln"])
def test_a_sampling_run_matches(tokenizer, run):
    recorded = load_file(GOLDEN / run / "case.safetensors")
    grids = [(side, side) for side in json.loads((GOLDEN / run / "config.json").read_text())["patch_nums"]]
    tokens = [recorded[f"s{k}.tokens"].view(-1, *grid) for k, grid in enumerate(grids)]
    latents = tokenizer.quantize.accumulate_prefixes(tokens, grids)
    for k, (f_hat, each) in enumerate(zip(latents, tokens, strict=True)):
        close(tokenizer.quantize.lookup(each), recorded[f"s{k}.h"], LATENT)
        close(f_hat, recorded[f"s{k}.f_hat"], LATENT)
        if k + 1 < len(grids):
            close(tokenizer.quantize.next_map(f_hat, grids[k + 1]), recorded[f"s{k}.next_map"], LATENT)
    close((tokenizer.decode(tokens, grids) + 1) / 2, recorded["image"], IMAGE)
    close(tokenizer.quantize.var_input(tokens, grids), recorded["tf.var_input"], LATENT)


def recipe(name, shape, seed):
    """The golden data's weights that are drawn instead of stored (see its README)."""
    normal = np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode())).standard_normal(shape)
    if name == "quantize.embedding.weight":
        mean, std = 0.0, 0.5
    elif name.endswith("bias"):
        mean, std = 0.0, 0.1
    elif len(shape) == 1:
        mean, std = 1.0, 0.1
    else:
        mean, std = 0.0, float(np.prod(shape[1:])) ** -0.5
    return torch.from_numpy(mean + std * normal).float()


def test_a_tokenizer_of_the_published_depth_matches():
    config = json.loads((GOLDEN / "vae_full" / "config.json").read_text())
    recorded = load_file(GOLDEN / "vae_full" / "case.safetensors")
    sizes = AutoencoderConfig(config["ch"], tuple(config["ch_mult"]), config["num_res_blocks"], config["z_channels"])
    module = VARTokenizer(TokenizerConfig(sizes, config["vocab_size"], tuple(config["patch_nums"])))
    seed = config["recipe_seed"]
    module.load_state_dict({name: recipe(name, tuple(v.shape), seed) for name, v in module.state_dict().items()})
    for name in (name for name in recorded if name.startswith("check.")):
        assert module.state_dict()[name.removeprefix("check.")].equal(recorded[name])
    with torch.no_grad():
        f = module.latent(recorded["image"])
        tokens, latents = module.quantize.encode_with_latents(f, module.config.grids)
        close(f, recorded["f"], LATENT)
        for k, (each, f_hat) in enumerate(zip(tokens, latents, strict=True)):
            assert each.flatten(1).equal(recorded[f"s{k}.tokens"])
            close(f_hat, recorded[f"s{k}.f_hat"], LATENT)
        close(module.decode(tokens), recorded["recon"], IMAGE)


# Gradients, dtypes, sizes


def test_images_that_are_not_square(tokenizer):
    images = torch.rand(1, 3, 12, 20) * 2 - 1
    grids = ((1, 1), (2, 3), (3, 5))
    tokens = tokenizer.encode(images, grids)
    assert [tuple(each.shape) for each in tokens] == [(1, 1, 1), (1, 2, 3), (1, 3, 5)]
    assert tokenizer.decode(tokens, grids).shape == images.shape


def test_double_precision_agrees_with_single(tokenizer, case):
    double = VARTokenizer(SMALL).double()
    double.load_state_dict(tokenizer.state_dict())
    with torch.no_grad():
        close(double.latent(case["image"].double()).float(), case["f"], LATENT)
        close(double.decode_latent(case["s3.f_hat"].double()).float(), case["recon"], IMAGE)


def test_bfloat16_runs_through(tokenizer, case):
    half = VARTokenizer(SMALL).to(torch.bfloat16)
    half.load_state_dict(tokenizer.state_dict())
    with torch.no_grad():
        image = half.decode(half.encode(case["image"].to(torch.bfloat16)))
    assert image.dtype == torch.bfloat16
    assert image.isfinite().all()


# The usage count in published files, and the fingerprint


def test_the_usage_count_of_another_schedule_is_ignored(tokenizer):
    state = {**tokenizer.state_dict(), "quantize.ema_vocab_hit_SV": torch.zeros(7, 64)}
    other = VARTokenizer(SMALL)
    other.load_state_dict(state)
    assert tokenizer_hash(other) == tokenizer_hash(tokenizer)
    assert "quantize.ema_vocab_hit_SV" in state


def test_the_fingerprint_sees_one_changed_weight_and_no_more(tokenizer):
    other = VARTokenizer(SMALL)
    other.load_state_dict(tokenizer.state_dict())
    before = tokenizer_hash(other)
    assert len(before) == 64
    assert before == tokenizer_hash(tokenizer) == tokenizer_hash(other.double())
    other.float().quantize.embedding.weight.data[3, 2] += 1
    assert tokenizer_hash(other) != before


# Refusals


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"channels": 48}, "multiple of 32.*got 48"),
        ({"channels": 0}, "multiple of 32"),
        ({"multipliers": ()}, "multipliers"),
        ({"multipliers": (1, 0)}, "multipliers"),
        ({"blocks": 0}, "blocks"),
        ({"latent_channels": 0}, "latent_channels"),
    ],
)
def test_autoencoder_sizes_that_cannot_work(sizes, message):
    with pytest.raises(ConfigError, match=message):
        AutoencoderConfig(**sizes)


@pytest.mark.parametrize("sizes", [{"patch_nums": ()}, {"patch_nums": (1, 5, 3)}, {"vocabulary": 0}])
def test_tokenizer_sizes_that_cannot_work(sizes):
    with pytest.raises(ConfigError, match=next(iter(sizes))):
        TokenizerConfig(**sizes)


def test_image_sizes():
    assert TokenizerConfig().image_size == 256
    assert SMALL.image_size == 20
    assert AutoencoderConfig().stride == 16


def test_shapes_that_do_not_fit(tokenizer):
    with pytest.raises(ShapeError, match="multiples of 4, got 20 x 22"):
        tokenizer.encode(torch.zeros(1, 3, 20, 22))
    with pytest.raises(ShapeError, match=r"asked for \(5, 5\), the latent map has \(6, 6\)"):
        tokenizer.encode(torch.zeros(1, 3, 24, 24))
    with pytest.raises(ShapeError, match=r"first grids .* got \[\(1, 1\), \(3, 3\)\]"):
        tokenizer.decode([torch.zeros(1, 1, 1, dtype=torch.int64), torch.zeros(1, 3, 3, dtype=torch.int64)])
    with pytest.raises(ShapeError, match="first grids"):
        tokenizer.decode([])
    with pytest.raises(ShapeError, match="at least one grid"):
        tokenizer.encode(torch.zeros(1, 3, 20, 20), ())
    with pytest.raises(ShapeError, match="one scale"):
        tokenizer.quantize.var_input([torch.zeros(1, 5, 5, dtype=torch.int64)], [(5, 5)])

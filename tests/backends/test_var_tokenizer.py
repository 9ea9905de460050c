"""The VAR tokenizer against values recorded from the official program, and against independent arithmetic."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.signal import correlate2d

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.multiscale_quantizer import MultiScaleQuantizer, phi_index
from hguide.backends.var.tokenizer import TokenizerConfig, VARTokenizer, tokenizer_hash
from hguide.errors import ConfigError, ShapeError

GOLDEN = Path(__file__).parents[1] / "golden" / "var"

# Absolute, float32 on the CPU; rounding of another order of sums reaches a tenth of these.
LATENT = 1e-5
IMAGE = 1e-4
ORACLE = 1e-5

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


def small_quantizer(seed=0, vocabulary=16, channels=3):
    torch.manual_seed(seed)
    return MultiScaleQuantizer(vocabulary, channels)


# The convolution chosen for each scale


@pytest.mark.parametrize(("name", "wanted"), json.loads((GOLDEN / "phi_index.json").read_text())["index"].items())
def test_phi_index_is_the_recorded_one_ties_included(name, wanted):
    convolutions, count = (int(part[1:]) for part in name.split("_"))
    assert phi_index(count, convolutions) == tuple(wanted)


def test_phi_index_of_one_scale_is_the_first():
    assert phi_index(1) == (0,)


@pytest.mark.parametrize(("count", "convolutions"), [(0, 4), (3, 0)])
def test_phi_index_refuses_nothing(count, convolutions):
    with pytest.raises(ConfigError, match="must be positive"):
        phi_index(count, convolutions)


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


def test_the_ten_published_scales_match():
    recorded = load_file(GOLDEN / "quant10.safetensors")
    grids = TokenizerConfig().grids
    quantizer = MultiScaleQuantizer(64, 8)
    quantizer.load_state_dict(
        {n.removeprefix("quantize."): v for n, v in recorded.items() if n.startswith("quantize.")}
    )
    tokens, latents = quantizer.encode_with_latents(recorded["f"], grids)
    for k in range(10):
        assert tokens[k].flatten(1).equal(recorded[f"s{k}.tokens"])
        close(latents[k].detach(), recorded[f"s{k}.f_hat"], LATENT)
    close(quantizer.var_input(tokens, grids).detach(), recorded["var_input"], LATENT)


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


# Independent arithmetic


def cubic_matrix(source, target):
    """Bicubic interpolation of one axis: Keys' kernel with a = -0.75, pixel centres aligned, edges repeated."""
    a = -0.75
    matrix = np.zeros((target, source))
    for row in range(target):
        position = (row + 0.5) * source / target - 0.5
        for column in range(int(np.floor(position)) - 1, int(np.floor(position)) + 3):
            x = abs(position - column)
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            matrix[row, min(max(column, 0), source - 1)] += near if x <= 1 else far
    return matrix


@pytest.mark.parametrize(("grid", "target"), [((1, 1), (4, 6)), ((2, 3), (5, 7)), ((5, 7), (5, 7))])
def test_contribution_is_bicubic_then_half_a_convolution(grid, target):
    quantizer = small_quantizer().double()
    h = torch.randn(2, 3, *grid, dtype=torch.float64)
    convolution = quantizer.quant_resi.qresi_ls[phi_index(5)[2]]
    weight, bias = convolution.weight.detach().numpy(), convolution.bias.detach().numpy()
    up = np.einsum("Hh,bchw,Ww->bcHW", cubic_matrix(grid[0], target[0]), h.numpy(), cubic_matrix(grid[1], target[1]))
    convolved = [
        [bias[o] + sum(correlate2d(sample[i], weight[o, i], mode="same") for i in range(3)) for o in range(3)]
        for sample in up
    ]
    wanted = torch.from_numpy(0.5 * up + 0.5 * np.array(convolved))
    close(quantizer.contribution(h, 2, 5, target).detach(), wanted, ORACLE)


@pytest.mark.parametrize(("grid", "target"), [((4, 6), (2, 3)), ((5, 7), (3, 4)), ((3, 3), (1, 1))])
def test_next_map_averages_the_cells_that_overlap(grid, target):
    f_hat = torch.randn(2, 3, *grid)

    def bins(source, count):
        return [slice(i * source // count, -((-(i + 1) * source) // count)) for i in range(count)]

    wanted = torch.stack(
        [
            torch.stack([f_hat[..., rows, columns].mean((-2, -1)) for columns in bins(grid[1], target[1])], -1)
            for rows in bins(grid[0], target[0])
        ],
        -2,
    )
    close(MultiScaleQuantizer.next_map(f_hat, target), wanted, ORACLE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_nearest_is_the_brute_force_choice(dtype):
    quantizer = small_quantizer(vocabulary=64, channels=8).to(dtype)
    z = torch.randn(2, 8, 5, 7).to(dtype)
    distances = torch.cdist(z.permute(0, 2, 3, 1).reshape(-1, 8).double(), quantizer.embedding.weight.double())
    tokens = quantizer.nearest(z)
    assert tokens.dtype == torch.int64
    assert tokens.equal(distances.argmin(1).view(2, 5, 7))


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    coarse=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=3),
    seed=st.integers(0, 100),
)
def test_any_schedule_encodes_and_replays(height, width, coarse, seed):
    quantizer = small_quantizer(seed).requires_grad_(False)
    grids = [(min(h, height), min(w, width)) for h, w in coarse] + [(height, width)]
    f = torch.randn(2, 3, height, width)
    before = f.clone()
    tokens, latents = quantizer.encode_with_latents(f, grids)
    replayed = quantizer.accumulate_prefixes(tokens, grids)
    assert f.equal(before)
    assert [tuple(each.shape[1:]) for each in tokens] == grids
    for k, grid in enumerate(grids):
        close(replayed[k], latents[k], 0)
        close(quantizer.accumulate(tokens[: k + 1], grids), latents[k], 0)
        residual = f - latents[k - 1] if k else f
        rows = quantizer.next_map(residual, grid).permute(0, 2, 3, 1).reshape(-1, 3)
        distances = torch.cdist(rows.double(), quantizer.embedding.weight.double())
        chosen = distances.gather(1, tokens[k].view(-1, 1)).squeeze(1)
        close(chosen, distances.min(1).values, ORACLE)
    if len(grids) > 1:
        maps = [quantizer.next_map(latents[k], grid).flatten(2).mT for k, grid in enumerate(grids[1:])]
        close(quantizer.var_input(tokens, grids), torch.cat(maps, 1), 0)


# Gradients, dtypes, sizes


def test_gradients_reach_the_codebook_and_phi_but_not_the_latent():
    quantizer = small_quantizer()
    f = torch.randn(2, 3, 4, 4, requires_grad=True)
    tokens, latents = quantizer.encode_with_latents(f, [(1, 1), (2, 2), (4, 4)])
    sum(each.square().sum() for each in latents).backward()
    used = torch.zeros(16, dtype=torch.bool)
    used[torch.cat([each.flatten() for each in tokens])] = True
    assert f.grad is None
    assert (quantizer.embedding.weight.grad.abs().sum(1) > 0).equal(used)
    assert [conv.weight.grad is not None for conv in quantizer.quant_resi.qresi_ls] == [True, False, True, True]


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

"""The multi-scale quantizer against recorded values, independent arithmetic and its own laws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.signal import correlate2d

from hguide.backends.multiscale_quantizer import MultiScaleQuantizer, phi_index
from hguide.errors import ConfigError

GOLDEN = Path(__file__).parents[1] / "golden" / "var"

# Absolute, float32 on the CPU; rounding of another order of sums reaches a tenth of these.
LATENT = 1e-5
ORACLE = 1e-5

GRIDS = tuple((side, side) for side in (1, 2, 3, 4, 5, 6, 8, 10, 13, 16))


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


def test_the_ten_published_scales_match():
    recorded = load_file(GOLDEN / "quant10.safetensors")
    grids = GRIDS
    quantizer = MultiScaleQuantizer(64, 8)
    quantizer.load_state_dict(
        {n.removeprefix("quantize."): v for n, v in recorded.items() if n.startswith("quantize.")}
    )
    tokens, latents = quantizer.encode_with_latents(recorded["f"], grids)
    for k in range(10):
        assert tokens[k].flatten(1).equal(recorded[f"s{k}.tokens"])
        close(latents[k].detach(), recorded[f"s{k}.f_hat"], LATENT)
    close(quantizer.var_input(tokens, grids).detach(), recorded["var_input"], LATENT)


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

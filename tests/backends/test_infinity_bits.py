"""Bits of Infinity: codes, patches, quantisation over scales, training inputs, and the sampler's rules for bits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.infinity import InfinityTokenizer, TokenizerConfig
from hguide.backends.infinity.bits import codes_of, gather_patches, quantize, spread_patches
from hguide.backends.infinity.tokenizer import groups_of
from hguide.backends.infinity.training_inputs import random_flips, training_inputs
from hguide.errors import ConfigError, ShapeError
from hguide.grids import Scale, Step
from hguide.noise import RecordedNoise
from hguide.sampling import Sampler

GRIDS = [(1, 1), (2, 1), (3, 2), (6, 4)]


def latent(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 5, 6, 4, generator=torch.Generator().manual_seed(seed))


def test_codes_lie_on_the_unit_sphere() -> None:
    bits = torch.randint(2, (2, 3, 4, 7), generator=torch.Generator().manual_seed(0))
    codes = codes_of(bits)
    assert codes.shape == (2, 7, 3, 4)
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(2, 3, 4))
    assert torch.equal(codes > 0, bits.permute(0, 3, 1, 2).bool())


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_patches_gather_and_spread(b: int, h: int, w: int, d: int) -> None:
    fine = torch.arange(b * 4 * h * w * d).view(b, 2 * h, 2 * w, d)
    coarse = gather_patches(fine)
    assert coarse.shape == (b, h, w, 4 * d)
    assert torch.equal(spread_patches(coarse), fine)
    for bit in range(d):
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            assert torch.equal(coarse[..., bit * 4 + dy * 2 + dx], fine[:, dy::2, dx::2, bit])


def test_quantisation_is_the_sign_of_what_is_left() -> None:
    """The same by hand: area means, signs, bilinear enlargement."""
    rest = latent()
    total = torch.zeros_like(rest)
    found = quantize(latent(), GRIDS)
    for k, grid in enumerate(GRIDS):
        bits = (F.adaptive_avg_pool2d(rest, grid) > 0).long().permute(0, 2, 3, 1)
        assert torch.equal(found.bits[k], bits)
        codes = (2.0 * bits.permute(0, 3, 1, 2) - 1.0) / math.sqrt(5)
        codes = F.interpolate(codes, size=(6, 4), mode="bilinear", align_corners=False)
        rest, total = rest - codes, total + codes
        torch.testing.assert_close(found.sums[k], total)
    zeros = quantize(torch.zeros(1, 5, 6, 4), GRIDS)
    assert not zeros.bits[0].any()  # a value of zero is a zero


def test_the_last_grid_is_the_latents() -> None:
    with pytest.raises(ShapeError, match="the latent's, 6 x 4; got"):
        quantize(latent(), GRIDS[:-1])


def test_errors_in_the_bits_are_seen_by_later_scales_alone() -> None:
    clean, noisy = quantize(latent(), GRIDS), quantize(latent(), GRIDS, lambda k, bits: 1 - bits if k == 1 else bits)
    assert torch.equal(clean.bits[0], noisy.bits[0])
    assert torch.equal(clean.bits[1], noisy.bits[1])
    assert not torch.equal(clean.bits[2], noisy.bits[2])


@pytest.mark.parametrize("patchify", [False, True])
def test_training_inputs_are_those_of_generation(patchify: bool) -> None:
    grids = [(2, 2), (4, 2), (6, 4)] if patchify else GRIDS
    found = training_inputs(latent(), grids, patchify=patchify)
    lengths = [h * w // (4 if patchify else 1) for h, w in grids]
    width = 20 if patchify else 5
    assert found.inputs.shape == (2, sum(lengths[1:]), width)
    assert found.targets.shape == (2, sum(lengths), width)
    scales = quantize(latent(), grids)
    start = 0
    for k, grid in enumerate(grids[1:], start=1):
        small = F.interpolate(scales.sums[k - 1], size=grid, mode="bilinear", align_corners=False)
        small = F.pixel_unshuffle(small, 2) if patchify else small
        part = found.inputs[:, start : start + lengths[k]]
        torch.testing.assert_close(part, small.flatten(2).transpose(1, 2))
        start += lengths[k]


def test_flips_have_a_probability_per_image_and_scale() -> None:
    flip = random_flips(torch.Generator().manual_seed(0), strength=0.3, scales=2)
    bits = torch.zeros(200, 8, 8, 16, dtype=torch.int64)
    rates = flip(0, bits).float().mean((1, 2, 3))
    assert 0.12 < rates.mean() < 0.18
    assert rates.max() < 0.36
    assert rates.min() < 0.02
    assert not flip(2, bits).any()
    assert not random_flips(torch.Generator().manual_seed(0), strength=0.0)(0, bits).any()


# Tokenizer


def test_the_decoder_has_one_block_more_and_no_attention() -> None:
    with torch.device("meta"):
        tokenizer = InfinityTokenizer(TokenizerConfig())
    assert sum(p.numel() for p in tokenizer.parameters()) == pytest.approx(110e6, rel=0.02)
    assert not [key for key in tokenizer.state_dict() if "attn" in key]
    assert tokenizer.config.stride == 16


@pytest.mark.parametrize(("widths", "groups"), [([128, 512], 32), ([24, 24], 24), ([32], 32), ([24, 48], 24)])
def test_groups_follow_the_widths(widths: list[int], groups: int) -> None:
    assert groups_of(widths) == groups


@pytest.mark.parametrize("widths", [[24, 96], [16], [40]])
def test_widths_that_no_tokenizer_has(widths: list[int]) -> None:
    with pytest.raises(ConfigError, match="multiples of 32, or all of 24"):
        groups_of(widths)


def test_attention_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no attention"):
        TokenizerConfig(AutoencoderConfig())


# The sampler's rules


def official_bits(two: torch.Tensor, noise: torch.Tensor, tau: float, top_k: int, top_p: float) -> torch.Tensor:
    """Two channels, sorted and filtered, then argmax of probability over exponential noise."""
    logits = two / tau
    if top_k == 1:
        logits = logits.masked_fill(logits < logits.max(-1, keepdim=True).values, -math.inf)
    if top_p > 0:
        ordered, places = logits.sort(dim=-1)
        drop = ordered.softmax(-1).cumsum(-1) <= 1 - top_p
        drop[..., -1] = False
        logits = logits.masked_fill(drop.gather(-1, places.argsort(-1)), -math.inf)
    return (logits.softmax(-1) / noise).argmax(-1)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.0), (900, 0.97), (2, 0.6), (1, 0.0), (1, 0.9)])
def test_bits_are_drawn_as_two_channels_are(tau: float, top_k: int, top_p: float) -> None:
    source = torch.Generator().manual_seed(4)
    two = torch.randn(2, 50, 8, 2, generator=source) * 3
    noise = torch.empty_like(two).exponential_(generator=source)
    uniform = noise[..., 0].double() / noise.double().sum(-1)
    step = Step(0, 1, 0, Scale(0, 5, 10))
    sampler = Sampler(temperature=tau, top_k=top_k, top_p=top_p)
    drawn = sampler.bits(two[..., 1] - two[..., 0], RecordedNoise({("uniform", 0, 0, "bit"): uniform}), step)
    assert torch.equal(drawn, official_bits(two, noise, tau, top_k, top_p))


def test_equal_values_are_both_kept_by_top_1() -> None:
    step = Step(0, 1, 0, Scale(0, 1, 2))
    noise = RecordedNoise({("uniform", 0, 0, "bit"): torch.tensor([[[0.3], [0.7]]])})
    assert Sampler(top_k=1).bits(torch.zeros(1, 2, 1), noise, step).flatten().tolist() == [0, 1]
    assert Sampler(top_k=1).bit_candidates(torch.tensor([[[0.0], [2.0]]]), step).flatten().tolist() == [0.0, math.inf]

"""DSE in its three transforms: against other libraries on the grids of the published models, and laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prior_oracles import PAIRS, SMALL_PAIRS, dse_dct, dse_dft, dse_wavelet, name, random_map

from hguide.errors import ConfigError, ShapeError
from hguide.priors import DSE, Bilinear
from hguide.priors.dct import dct_lowpass, dct_matrix
from hguide.priors.dft import dft_band
from hguide.priors.wavelet import band_size, wavelet_band

# Absolute, float64. PyWavelets' own filters are orthonormal to a few 1e-12 only (sym, coif, dmey).
TOLERANCE = 1e-10
WAVELETS = ["haar", "db2", "sym4", "bior2.2", "coif1"]
# Modes that extend a constant by itself.
CONSTANT_MODES = ["symmetric", "periodization", "periodic", "smooth", "constant"]

sides = st.integers(1, 9)
grids = st.tuples(sides, sides)
pairs = st.tuples(grids, grids).map(lambda two: (two[0], (two[0][0] + two[1][0] - 1, two[0][1] + two[1][1] - 1)))
laws = settings(derandomize=True, deadline=None, max_examples=30)


def check(prior, expected, source, target, channels=3):
    """The prior of a random map, by the compiled product and by its reference, against the oracle."""
    maps = random_map(*source, channels, seed=sum(target))
    wanted = expected(maps.numpy(), target)
    np.testing.assert_allclose(prior(maps, target).numpy(), wanted, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(prior.reference(maps, target).numpy(), wanted, atol=TOLERANCE, rtol=0)


def dense(prior, source, target):
    """The prior of each unit map, as columns."""
    count = source[0] * source[1]
    units = torch.eye(count, dtype=torch.float64).reshape(*source, count)
    return prior.reference(units, target).reshape(-1, count)


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_dct_is_algorithm_1(pair):
    check(DSE(), dse_dct, *pair)


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_dft_on_published_grids(pair):
    check(DSE(transform="dft"), dse_dft, *pair, channels=2)


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_haar_on_published_grids(pair):
    check(DSE(transform="haar"), lambda maps, target: dse_wavelet(maps, target, "haar"), *pair)


@pytest.mark.parametrize("pair", SMALL_PAIRS, ids=name)
def test_matrix_is_the_prior_of_each_unit_map(pair):
    for prior in (DSE(), DSE(transform="dft", high="zero"), DSE(transform="db2", gain=0.5)):
        assert torch.allclose(prior.matrix(*pair), dense(prior, *pair), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("pair", [((3, 3), (4, 4)), ((4, 3), (8, 6)), ((6, 5), (9, 5)), ((13, 13), (16, 16))], ids=name)
def test_options_of_the_fusion(pair, mode, zero):
    source, target = pair
    amplitude = math.sqrt(target[0] * target[1] / (source[0] * source[1]))
    high = "zero" if zero else "interpolated"
    for gain, factor in (("literal", 1.0), ("amplitude", amplitude), (0.7, 0.7)):
        same = {"interpolation": mode, "high": high, "gain": gain}
        check(DSE(**same), lambda m, t, g=factor: dse_dct(m, t, mode, g, zero), *pair)
        for phase in ("centre", "origin"):
            check(
                DSE(transform="dft", phase=phase, **same),
                lambda m, t, g=factor, p=phase: dse_dft(m, t, mode, g, zero, p),
                *pair,
            )
        factor = factor if isinstance(gain, float) else 1.0
        check(
            DSE(transform="db2", **same),
            lambda m, t, g=factor: dse_wavelet(m, t, "db2", "symmetric", 1, mode, zero, g),
            *pair,
        )


@pytest.mark.parametrize("mode", ["symmetric", "periodization", "periodic", "zero", "reflect", "smooth"])
@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("wavelet", WAVELETS)
def test_wavelets_levels_and_modes(wavelet, levels, mode):
    prior = DSE(transform=wavelet, levels=levels, mode=mode)
    smallest = ((5, 7), (8, 8)) if mode == "reflect" else ((2, 2), (3, 3))
    for pair in (((13, 13), (16, 16)), ((5, 7), (8, 13)), smallest):
        check(prior, lambda maps, target: dse_wavelet(maps, target, wavelet, mode, levels), *pair)


def test_an_axis_of_one_value_cannot_be_reflected():
    prior = DSE(transform="haar", levels=3, mode="reflect")
    for carry in (prior, prior.reference):
        with pytest.raises(ConfigError, match=r"cannot extend an axis of one value \(axis of 3, level 3\)"):
            carry(random_map(2, 2, 1), (3, 3))


@laws
@given(pair=pairs, transform=st.sampled_from(["dct", "dft", *WAVELETS]), zero=st.booleans())
def test_odd_and_oblong_grids(pair, transform, zero):
    source, target = pair
    if source == target:
        return
    prior = DSE(transform=transform, high="zero" if zero else "interpolated")
    oracle = {
        "dct": lambda m, t: dse_dct(m, t, zero=zero),
        "dft": lambda m, t: dse_dft(m, t, zero=zero),
    }.get(transform, lambda m, t: dse_wavelet(m, t, transform, zero=zero))
    check(prior, oracle, source, target)


@laws
@given(size=st.integers(1, 70))
def test_the_dct_is_orthonormal(size):
    assert torch.allclose(dct_matrix(size).T @ dct_matrix(size), torch.eye(size).double(), atol=TOLERANCE, rtol=0)


@laws
@given(source=st.integers(1, 20), more=st.integers(0, 12))
def test_low_band_and_rest_are_orthogonal_projections(source, more):
    target = source + more
    for split in (dct_lowpass(target, source), dft_band(source, target, "centre")[1]):
        assert torch.allclose(split @ split, split, atol=TOLERANCE, rtol=0)
        assert torch.allclose(split.T, split, atol=TOLERANCE, rtol=0)


@laws
@given(pair=pairs)
def test_literal_keeps_the_coefficients_verbatim(pair):
    from scipy.fft import dctn

    source, target = pair
    maps = random_map(*source, 2)
    spectrum = dctn(DSE()(maps, target).numpy(), axes=(0, 1), norm="ortho")
    low = dctn(maps.numpy(), axes=(0, 1), norm="ortho")
    np.testing.assert_allclose(spectrum[: source[0], : source[1]], low, atol=TOLERANCE, rtol=0)


@laws
@given(
    pair=pairs,
    transform=st.sampled_from(["dct", "dft", *WAVELETS]),
    zero=st.booleans(),
    mode=st.sampled_from(CONSTANT_MODES),
    levels=st.integers(1, 2),
)
def test_amplitude_keeps_constants(pair, transform, zero, mode, levels):
    source, target = pair
    wavelet = {"mode": mode, "levels": levels} if transform in WAVELETS else {}
    prior = DSE(transform=transform, gain="amplitude", high="zero" if zero else "interpolated", **wavelet)
    constant = torch.full((*source, 1), 3.0, dtype=torch.float64)
    assert torch.allclose(prior(constant, target), torch.full((*target, 1), 3.0).double(), atol=1e-9, rtol=0)


def test_literal_attenuates_a_constant():
    assert DSE()(torch.full((13, 13, 1), 3.0), (16, 16)).flatten().tolist() == pytest.approx([2.4375] * 256, abs=1e-5)


@laws
@given(grid=grids, transform=st.sampled_from(["dct", "dft", "haar", "db2"]))
def test_identity_on_equal_grids(grid, transform):
    maps = random_map(*grid, 2)
    for gain in ("literal", "amplitude"):
        prior = DSE(transform=transform, gain=gain)
        assert torch.equal(prior(maps, grid), maps)
        assert torch.equal(prior.reference(maps, grid), maps)
    assert torch.allclose(DSE(transform=transform, gain=0.5)(maps, grid), 0.5 * maps)


@laws
@given(source=st.integers(3, 16), more=st.integers(0, 16), data=st.data())
def test_a_sampled_cosine_stays_itself_in_the_dft(source, more, data):
    target = source + more
    frequency = data.draw(st.integers(0, (source - 1) // 2))
    angle = data.draw(st.floats(0, 6.3))

    def wave(size, half):
        return torch.cos(2 * math.pi * frequency * (torch.arange(size).double() + half) / size + angle)

    for phase, half in (("centre", 0.5), ("origin", 0.0)):
        prior = DSE(transform="dft", phase=phase, gain="amplitude", high="zero")
        line = wave(source, half)[:, None, None].expand(source, 3, 1)
        expected = wave(target, half)[:, None, None].expand(target, 5, 1)
        assert torch.allclose(prior(line, (target, 5)), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("pair", SMALL_PAIRS, ids=name)
def test_the_copied_dct_block_is_an_isometry(pair):
    carried = DSE(high="zero").matrix(*pair)
    assert torch.allclose(carried.T @ carried, torch.eye(carried.shape[1]).double(), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("pair", [((1, 1), (2, 2)), ((3, 5), (4, 5)), ((4, 3), (4, 7)), ((13, 13), (16, 16))], ids=name)
def test_the_copied_dft_block_is_an_isometry_without_nyquist(pair):
    """Where an even axis grows, its Nyquist coefficient is shared between two bins, and half of its energy is lost."""
    carried = DSE(transform="dft", high="zero").matrix(*pair)
    assert torch.allclose(carried.T @ carried, torch.eye(carried.shape[1]).double(), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "db4"])
@pytest.mark.parametrize(
    ("source", "target", "levels"), [((8, 8), (16, 16), 1), ((3, 2), (8, 12), 1), ((2, 3), (8, 16), 2)]
)
def test_an_orthogonal_wavelet_is_an_isometry_but_for_the_gain(wavelet, source, target, levels):
    gain = math.sqrt(source[0] * source[1] / (target[0] * target[1]))
    prior = DSE(transform=wavelet, high="zero", mode="periodization", levels=levels, gain=gain)
    carried = prior.matrix(source, target)
    assert torch.allclose(carried.T @ carried, torch.eye(carried.shape[1]).double(), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize("mode", ["symmetric", "periodization", "smooth"])
@pytest.mark.parametrize("size", [1, 2, 5, 8, 13, 16])
def test_the_wavelet_split_loses_nothing(size, mode, wavelet):
    """A map whose approximation band is what it was comes back: the split takes that band out exactly once."""
    import pywt

    line = random_map(size).numpy()
    approximation, detail = pywt.dwt(line, wavelet, mode)
    _, split = wavelet_band(size, size, wavelet, mode, 1)
    high = pywt.idwt(None, detail, wavelet, mode)[:size]
    np.testing.assert_allclose(split.numpy() @ line + high, line, atol=TOLERANCE, rtol=0)
    assert approximation.shape == (band_size(size, wavelet, mode, 1),)


@laws
@given(pair=pairs, a=st.floats(-5, 5), transform=st.sampled_from(["dct", "dft", "db2"]))
def test_linear_and_channel_by_channel(pair, a, transform):
    source, target = pair
    prior = DSE(transform=transform)
    x, y = random_map(2, *source, 3, seed=1), random_map(2, *source, 3, seed=2)
    both = prior(a * x + y, target)
    assert torch.allclose(both, a * prior(x, target) + prior(y, target), atol=TOLERANCE, rtol=0)
    assert torch.allclose(prior(x[1, ..., 2:], target), prior(x, target)[1, ..., 2:], atol=TOLERANCE, rtol=0)


def test_interpolated_minus_zero_is_the_high_band():
    maps = random_map(6, 6, 2)
    high = DSE()(maps, (8, 8)) - DSE(high="zero")(maps, (8, 8))
    plain = Bilinear()(maps, (8, 8))
    assert torch.allclose(
        high,
        plain - torch.einsum("Hh,Ww,hwv->HWv", dct_lowpass(8, 6), dct_lowpass(8, 6), plain),
        atol=TOLERANCE,
        rtol=0,
    )


def test_half_precision_reference():
    maps = random_map(2, 4, 4, 3, dtype=torch.float16)
    reference = DSE().reference(maps, (5, 5))
    assert reference.dtype == torch.float16
    assert torch.allclose(reference.double(), DSE().reference(maps.double(), (5, 5)), atol=4e-3)


def test_defaults_are_the_papers():
    assert DSE() == DSE("dct", "bilinear", "interpolated", "literal", "centre", 1, "symmetric")
    assert hash(DSE()) == hash(DSE())
    assert not DSE().depends_on_step


def test_all_problems_in_one_message():
    with pytest.raises(ConfigError) as caught:
        DSE(
            transform="dtc",
            interpolation="bilinaer",
            high="none",
            gain="ampltude",
            phase="center",
            levels=0,
            mode="sym",
        )
    text = str(caught.value)
    for part in (
        "unknown transform 'dtc': did you mean",
        "unknown interpolation 'bilinaer': did you mean 'bilinear'",
        "unknown high 'none'",
        "unknown gain 'ampltude', not a number either: did you mean 'amplitude'",
        "unknown phase 'center': did you mean 'centre'",
        "levels must be at least 1, got 0",
        "unknown mode 'sym'",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phase": "origin"}, "phase is an option of the dft, but transform is 'dct'"),
        ({"levels": 2, "mode": "periodic"}, "levels is an option of wavelets.*; mode is an option of wavelets"),
        ({"transform": "haar", "phase": "origin"}, "phase is an option of the dft, but transform is 'haar'"),
        ({"gain": math.nan}, "gain must be finite"),
    ],
)
def test_options_of_another_transform(options, message):
    with pytest.raises(ConfigError, match=message):
        DSE(**options)


@pytest.mark.parametrize("target", [(8, 9), (9, 8), (1, 1)])
def test_a_shrinking_grid_is_refused(target):
    with pytest.raises(ShapeError, match=r"the map is 9x9 and the target .*use a spatial prior"):
        DSE()(random_map(9, 9, 1), target)
    with pytest.raises(ShapeError, match="the map is 9x9"):
        DSE().reference(random_map(9, 9, 1), target)


def test_notes():
    assert "low dct block 13x13; a constant is multiplied by 0.8125" in DSE().note((13, 13), (16, 16))
    assert "multiplied by 1" in DSE(gain="amplitude").note((13, 13), (16, 16))
    assert "frequencies 8-12 (height), 8-12 (width) are lost" in DSE(transform="haar").note((13, 13), (16, 16))
    assert "frequencies 9 (height) are lost" in DSE(transform="db2").note((10, 4), (16, 16))
    assert "band 8x8 of haar, level 1; no frequency is lost" in DSE(transform="haar").note((6, 8), (16, 16))
    assert "identity" in DSE().note((4, 4), (4, 4))

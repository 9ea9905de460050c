"""Orthonormality, Parseval's identity and the projectors of the bands, against scipy and PyWavelets."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dct, fft

from hguide.priors import DSE
from hguide.theory.bands import (
    Transform,
    band_projectors,
    frame_bounds,
    low_rows,
    orthonormality_error,
    projector_errors,
    transform_matrices,
    verbatim_gap,
)

ORTHOGONAL = ("haar", "db2", "sym4")


@pytest.mark.parametrize("size", [1, 2, 5, 13, 16])
def test_matrices_are_the_libraries_transforms(size: int) -> None:
    x = np.random.default_rng(0).standard_normal(size)
    found = {name: transform_matrices(Transform(name), size)[0].numpy() @ x for name in ("dct", "dft")}
    np.testing.assert_allclose(found["dct"], dct(x, norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(found["dft"], fft(x, norm="ortho"), atol=1e-12)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("mode", ["symmetric", "periodization"])
@pytest.mark.parametrize("name", ["haar", "db2", "bior2.2"])
@pytest.mark.filterwarnings("ignore:Level value")
def test_wavelet_matrices_are_pywavelets(name: str, mode: str, levels: int) -> None:
    for size in (13, 16):
        x = np.random.default_rng(0).standard_normal(size)
        analysis, synthesis = transform_matrices(Transform(name, mode, levels), size)
        wanted = np.concatenate(pywt.wavedec(x, name, mode, levels))
        np.testing.assert_allclose(analysis.numpy() @ x, wanted, atol=1e-12)
        np.testing.assert_allclose((synthesis @ analysis).numpy(), np.eye(size), atol=1e-12)


def test_orthonormal_transforms() -> None:
    cases = [Transform("dct"), Transform("dft"), *(Transform(name, "periodization") for name in ORTHOGONAL)]
    for case in cases:
        assert max(orthonormality_error(case, size) for size in (4, 10, 16)) < 1e-11
    for case in cases[:2]:
        assert max(orthonormality_error(case, size) for size in (1, 5, 13)) < 1e-12


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.integers(1, 24), st.integers(0, 2**31))
def test_parseval(size: int, seed: int) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal(size))
    for name in ("dct", "dft"):
        coefficients = transform_matrices(Transform(name), size)[0].to(torch.complex128) @ x.to(torch.complex128)
        assert float(coefficients.abs().square().sum()) == pytest.approx(float(x.square().sum()), rel=1e-10)


def test_wavelets_that_are_not_orthonormal() -> None:
    # Haar doubles the energy of the last value of an odd axis, and is orthonormal on even ones.
    assert frame_bounds(Transform("haar"), 13) == pytest.approx((1.0, 2.0))
    assert frame_bounds(Transform("haar"), 16) == pytest.approx((1.0, 1.0))
    assert frame_bounds(Transform("bior2.2", "periodization"), 16) == pytest.approx((0.5, 2.0))
    for name in ("db2", "bior2.2"):
        assert frame_bounds(Transform(name), 16)[1] > 1.9
    assert orthonormality_error(Transform("bior2.2", "periodization"), 16) > 0.4


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.sampled_from(["dct", "dft", "haar", "bior2.2"]), st.integers(2, 16), st.integers(0, 2**31))
def test_energy_lies_between_the_frame_bounds(name: str, size: int, seed: int) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal(size))
    coefficients = transform_matrices(Transform(name), size)[0].to(torch.complex128) @ x.to(torch.complex128)
    ratio = float(coefficients.abs().square().sum())
    low, high = frame_bounds(Transform(name), size)
    assert low - 1e-9 <= ratio / float(x.square().sum()) <= high + 1e-9


@pytest.mark.parametrize("pair", [((1, 1), (2, 2)), ((4, 6), (6, 9)), ((5, 5), (5, 5)), ((3, 4), (5, 4))])
@pytest.mark.parametrize("name", ["dct", "dft", "haar", "db2", "bior2.2"])
def test_projectors(name: str, pair: tuple[tuple[int, int], tuple[int, int]]) -> None:
    errors = projector_errors(Transform(name), *pair)
    assert errors.sum < 1e-11
    assert errors.prior < 1e-11
    if name in ("dct", "dft"):
        assert max(errors.idempotent, errors.symmetric) < 1e-12
    if name in ("db2", "bior2.2"):
        assert max(errors.idempotent, errors.symmetric) > 0.05


@pytest.mark.parametrize("name", ["dct", "dft"])
def test_the_energy_of_a_map_is_that_of_its_bands(name: str) -> None:
    low, high = band_projectors(Transform(name), (4, 6), (6, 9))
    x = torch.from_numpy(np.random.default_rng(0).standard_normal(54))
    assert float((low @ x).square().sum() + (high @ x).square().sum()) == pytest.approx(float(x.square().sum()))
    # The prior is the high band of the interpolation and the coarse spectrum: H P = H U, L P is the rest.
    prior, interpolated = DSE(transform=name), DSE(transform=name, gain=0.0)
    difference = (prior.matrix((4, 6), (6, 9)) - interpolated.matrix((4, 6), (6, 9))).abs().max()
    assert difference > 0.1
    assert float((low @ interpolated.matrix((4, 6), (6, 9))).abs().max()) < 1e-12
    assert float((high @ (prior.matrix((4, 6), (6, 9)) - interpolated.matrix((4, 6), (6, 9)))).abs().max()) < 1e-12


def test_low_rows() -> None:
    assert low_rows(Transform("dct"), 3, 5).tolist() == [True, True, True, False, False]
    # An even source shares its Nyquist coefficient between both signs.
    assert low_rows(Transform("dft"), 4, 7).tolist() == [True, True, True, False, False, True, True]
    assert int(low_rows(Transform("haar"), 13, 16).sum()) == 8


def test_a_constant_is_not_kept_verbatim() -> None:
    assert verbatim_gap((1, 1), (2, 2)) == pytest.approx(0.5)
    assert verbatim_gap((13, 13), (16, 16)) == pytest.approx(1.0 - 13 / 16)
    assert verbatim_gap((13, 13), (16, 16), "amplitude") == pytest.approx(0.0, abs=1e-12)

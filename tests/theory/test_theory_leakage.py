"""Transfer matrices and leakage of the priors, against cosines written out, and table 5's order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from hguide.backends.infinity.scale_schedule import published_ratios, published_schedule
from hguide.guidance import parse_prior
from hguide.priors import DSE, Bilinear, Nearest
from hguide.theory.leakage import (
    PRIORS,
    band_gain,
    energy_split,
    leakage,
    literal_low_gain,
    natural_spectrum,
    schedule_leakage,
    transfer,
)
from hguide.theory.prior_order import TABLE_5, part_share, predicted_order
from hguide.theory.published_grids import SCHEDULES, every_schedule

PAIRS = [((1, 1), (2, 2)), ((4, 6), (6, 9)), ((8, 8), (10, 10)), ((3, 4), (5, 4))]
ids = [f"{s[0]}x{s[1]}-{t[0]}x{t[1]}" for s, t in PAIRS]


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=ids)
@pytest.mark.parametrize("text", PRIORS.values())
def test_transfer_is_the_spectrum_of_what_the_prior_does(text: str, source, target) -> None:
    prior = parse_prior(text)
    maps = np.random.default_rng(0).standard_normal((*source, 3))
    carried = prior(torch.from_numpy(maps), target).numpy()
    wanted = dctn(carried, axes=(0, 1), norm="ortho")
    spectrum = torch.from_numpy(dctn(maps, axes=(0, 1), norm="ortho"))
    found = torch.einsum("IJij,ijv->IJv", transfer(prior, source, target), spectrum)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-11)


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=ids)
@pytest.mark.parametrize("text", PRIORS.values())
def test_the_parts_add_up(text: str, source, target) -> None:
    prior = parse_prior(text)
    (h, w), (H, W) = source, target
    moved = transfer(prior, source, target)
    unit = h * w / (H * W)
    split, energy = energy_split(prior, source, target), moved.square() * unit
    ideal = torch.zeros(H, W, h, w, dtype=torch.float64)
    own = torch.zeros(h, w, dtype=torch.float64)
    for i in range(h):
        for j in range(w):
            ideal[i, j, i, j] = unit**-0.5
            own[i, j] = moved[i, j, i, j] * unit**0.5
    torch.testing.assert_close(band_gain(prior, source, target), own)
    spurious = energy.sum((0, 1)) - energy[:h, :w].sum((0, 1))
    torch.testing.assert_close(split.spurious, spurious, atol=1e-10, rtol=0)
    distance = (moved - ideal).square().sum((0, 1)) * unit
    torch.testing.assert_close(split.total, distance, atol=1e-10, rtol=0)


def test_the_ideal_prior() -> None:
    for grids in every_schedule().values():
        rows = schedule_leakage(DSE(high="zero", gain="amplitude"), grids)
        assert [(row.source, row.target) for row in rows] == list(pairwise(grids))
        assert max(row.total for row in rows) < 1e-12


def test_the_gain_of_linear_interpolation_of_twice_the_size() -> None:
    # Each new value is 3/4 of the nearer old one and 1/4 of the other, which lie a quarter and three quarters of an old
    # pixel away; at the border the old map is repeated, as the cosines of the DCT are.
    gain = band_gain(Bilinear(), (8, 1), (16, 1))[:, 0]
    per_pixel = np.pi * np.arange(8) / 8
    wanted = (3 / 4) * np.cos(per_pixel / 4) + (1 / 4) * np.cos(3 * per_pixel / 4)
    np.testing.assert_allclose(gain.numpy(), wanted, atol=1e-12)
    assert float(energy_split(Bilinear(), (8, 1), (16, 1)).crosstalk.max()) < 1e-12


def test_nearest_and_bilinear() -> None:
    for grids in SCHEDULES.values():
        near, smooth = schedule_leakage(Nearest(), grids), schedule_leakage(Bilinear(), grids)
        assert near[0].total == smooth[0].total == pytest.approx(0.0, abs=1e-12)
        for one, other in zip(near[1:], smooth[1:], strict=True):
            assert one.spurious > other.spurious + 0.02
            assert one.constant == pytest.approx(1.0)


def test_what_is_wrong_with_nearest_and_linear() -> None:
    assert part_share("bilinear", "attenuation") > 0.9
    assert part_share("nearest", "spurious") < part_share("nearest", "crosstalk")


def test_the_literal_gain_sharpens_what_is_repeated() -> None:
    for source, target in pairwise(SCHEDULES["VAR-256"]):
        repeated = torch.randn(1, *source, 2, dtype=torch.float64)
        now = DSE(high="zero", gain="amplitude")(repeated, target)
        for gain, wanted in (("literal", literal_low_gain(source, target, 0.7)), ("amplitude", 1.0)):
            guided = now + 0.7 * (now - DSE(high="zero", gain=gain)(repeated, target))
            torch.testing.assert_close(guided, wanted * now)


def test_the_order_of_table_5() -> None:
    assert list(TABLE_5) == sorted(TABLE_5, key=TABLE_5.__getitem__, reverse=True)
    amplitude = predicted_order(gain="amplitude")
    assert amplitude.against == (("zero high", "DSE"),)
    literal = predicted_order(gain="literal")
    assert ("linear", "DSE") in literal.against
    assert literal.values["DSE"] > 2 * literal.values["linear"]
    assert ("linear", "DSE") in predicted_order(gain="literal", flat=True).agree
    for order in (amplitude, literal):
        assert ("nearest", "linear") in order.agree


def test_the_schedules_are_those_of_the_backend() -> None:
    """Infinity's are kept in one place, with all ratios; smaller pictures have the first scales of the largest."""
    every = every_schedule()
    assert every["Infinity-1M"] == published_schedule("1M", 1.0).grids
    assert len(every) == len(SCHEDULES) + len(published_ratios()) - 1
    assert published_schedule("0.25M", 1.0).grids == every["Infinity-1M"][:10]


def test_spectra_are_shares() -> None:
    assert float(natural_spectrum((5, 7)).sum()) == pytest.approx(1.0)
    assert leakage(Nearest(), (5, 7), (9, 9)).total < leakage(Nearest(), (5, 7), (9, 9), flat=True).total

"""The family: SSG, CFG, FDG and VPG after CFG as special cases, bands and lags written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from guided_runs import CORRUPT, FOUR, GRIDS, Corrupted, maps, run, step_of
from scipy.fft import dctn, idctn
from torch import Tensor

from hguide.errors import ConfigError
from hguide.guidance import CFG, FDG, SSG, Family, parse
from hguide.guidance.bands import Bands
from hguide.priors import DSE, Bilinear, LowPass, Nearest
from hguide.schedules import Constant, Linear, Ramp
from hguide.streams import COND, UNCOND
from hguide.testing import check_guidance

SAME = 5e-6
ORACLE = 1e-4
DOUBLE = 1e-12


@pytest.mark.parametrize(
    ("family", "special"),
    [
        (Family(0.8), SSG(0.8)),
        (Family(Constant(0.4), prior=Nearest()), SSG(Constant(0.4), prior=Nearest())),
        (Family(0.8, lags=(0.0, 1.0), prior=Bilinear()), SSG(0.8, stride=2, prior=Bilinear())),
        (Family(0.8, edges=(0.5,), bands=(1.0, 1.0)), SSG(0.8)),
        (Family(1.5, source="null"), CFG(1.5)),
        (Family(2.0, source="null", schedule=Constant()), CFG(w=3.0)),
        (
            Family(2.0, source="null", edges=(0.25, 0.5), bands=(0.5, 1.0, 2.0)),
            FDG(2.0, gains=(0.5, 1.0, 2.0), bands="dct"),
        ),
        (Family(1.5, source="null") | Family(0.8), CFG(1.5) | SSG(0.8)),
    ],
    ids=str,
)
def test_special_cases(family: Any, special: Any) -> None:
    for x, y in zip(run(family), run(special), strict=True):
        torch.testing.assert_close(x, y, atol=SAME, rtol=0)


def test_vpg_after_cfg_is_a_sum_of_three_terms_with_a_negative_weight() -> None:
    t, lam = 1.5, 0.7
    terms = (
        Family(t * (1 + lam), source="null", schedule=Constant())
        + Family(lam * (1 + t), source="corrupted")
        + Family(-lam * t, source="corrupted_null")
    )
    chain = CFG(Constant(t)) | Corrupted(lam)
    assert terms.linear
    for k in (1, 2, 3):
        assert terms.weights(COND, step_of(k)) == pytest.approx(chain.weights(COND, step_of(k)))
        assert set(terms.asks(COND, step_of(k))) == set(FOUR)
        guided, wanted = (each.apply(maps(k, FOUR), step_of(k), {})[0] for each in (terms, chain))
        torch.testing.assert_close(guided, wanted, atol=SAME, rtol=0)
    # Without a prefix the corrupted streams are the clean ones.
    assert terms.asks(COND, step_of(0)) == (COND, UNCOND)
    assert terms.weights(COND, step_of(0)) == pytest.approx({COND: 1 + t, UNCOND: -t})


def test_streams_whose_field_is_changed_already_are_left_alone() -> None:
    assert Family(source="null").asks(UNCOND, step_of(2)) == (UNCOND,)
    assert Family(source="corrupted").asks(CORRUPT, step_of(2)) == (CORRUPT,)
    assert Family(source="corrupted").asks(UNCOND, step_of(2)) == (UNCOND, CORRUPT.null)
    assert Family(source="corrupted_null").asks(UNCOND, step_of(2)) == (UNCOND,)


def band_weights(grid: tuple[int, int], edges: tuple[float, ...], factors: tuple[float, ...]) -> np.ndarray:
    """Factor of each DCT frequency."""
    weights = np.empty(grid)
    for place in np.ndindex(grid):
        inside = [all(f < np.ceil(edge * n) for f, n in zip(place, grid, strict=True)) for edge in edges]
        weights[place] = factors[inside.index(True) if any(inside) else -1]
    return weights


def test_bands_and_several_steps_back_written_out() -> None:
    edges, lags = (0.3, 0.6), (1.0, -0.5, 0.25)
    bands = (1.0, Constant(-0.5), Ramp(2.0))
    guided = run(Family(0.8, edges=edges, bands=bands, lags=lags))
    past: list[Tensor] = []
    for k in range(4):
        logits = maps(k, (COND, UNCOND))[COND].double()
        change = torch.zeros_like(logits)
        for lag, before in zip(lags, reversed(past), strict=False):
            change += lag * (logits - DSE().reference(before, GRIDS[k]))
        beta = 0.8 * (1 - k / 4)
        weights = band_weights(GRIDS[k], edges, (beta, -0.5 * beta, 2.0 * k / 3 * beta))
        spectrum = dctn(change.numpy(), axes=(1, 2), norm="ortho") * weights[None, :, :, None]
        wanted = logits + torch.from_numpy(idctn(spectrum, axes=(1, 2), norm="ortho"))
        torch.testing.assert_close(guided[k].double(), wanted, atol=ORACLE, rtol=0)
        past.append(logits)


@pytest.mark.parametrize("grid", [(1, 1), (3, 4), (7, 5), (16, 16)])
def test_bands_are_orthogonal_projections_that_sum_to_the_identity(grid: tuple[int, int]) -> None:
    lows = (LowPass(0.25), LowPass(0.5))
    ones = [Bands(tuple(float(b == i) for b in range(3)), lows).matrix(grid, grid) for i in range(3)]
    torch.testing.assert_close(sum(ones), torch.eye(grid[0] * grid[1], dtype=torch.float64), atol=DOUBLE, rtol=0)
    for i, a in enumerate(ones):
        torch.testing.assert_close(a, a.T, atol=DOUBLE, rtol=0)
        for j, b in enumerate(ones):
            torch.testing.assert_close(a @ b, a if i == j else torch.zeros_like(a), atol=DOUBLE, rtol=0)


def test_one_factor_too_few_is_no_set_of_bands() -> None:
    with pytest.raises(ConfigError, match="2 bands have 1 edges, got 2"):
        Bands((1.0, 2.0), (LowPass(0.25), LowPass(0.5)))


def test_it_remembers_as_many_maps_as_it_has_lags() -> None:
    guidance, memory = Family(lags=(1.0, 0.5)), {}
    for k in range(4):
        _, memory = guidance.apply(maps(k, (COND, UNCOND)), step_of(k), memory)
    (remembered,) = memory.values()
    assert [tuple(each.shape[1:3]) for each in remembered] == [GRIDS[2], GRIDS[3]]


def test_it_needs_full_maps_only_for_bands_and_is_linear_only_over_streams() -> None:
    banded = {"edges": (0.5,), "bands": (1.0, 2.0)}
    assert Family().partial
    assert not Family(**banded).partial
    assert Family(source="null").linear
    assert not Family().linear
    assert not Family(source="null", **banded).linear


@pytest.mark.parametrize(
    "text",
    [
        "family(-0.5, lags=[1.0, -0.5], prior=nearest)",
        "family(0.8, edges=[0.25, 0.5], bands=[1.0, linear(2.0), cosine], start=0.25)",
        "family(1.5, source=null, edges=[0.5], bands=[0.5, 1.5]) + family(0.8)",
        "family(2.0, source=corrupted, corruption=0.2) + family([0.0, -1.0, -1.0, 0.5], source=corrupted_null)",
        "family(source=null, schedule=constant) | family(schedule=cosine)",
    ],
)
def test_options_pass_the_contract(text: str) -> None:
    check_guidance(parse(text))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Family(float("nan")), "strength is finite"),
        (lambda: Family(source="nul"), "unknown source 'nul': did you mean 'null'"),
        (lambda: Family(lags=()), r"lags are finite numbers, at least one, got \[\]"),
        (lambda: Family(edges=(0.5, 0.25), bands=(1.0, 1.0, 1.0)), r"edges ascend within \(0, 1\), got \[0.5, 0.25\]"),
        (lambda: Family(edges=(1.0,), bands=(1.0, 1.0)), r"edges ascend within \(0, 1\)"),
        (lambda: Family(bands=(1.0, 2.0)), "0 edges make 1 bands, got 2 factors"),
        (lambda: Family(bands=(float("inf"),)), "bands are finite numbers or schedules"),
        (lambda: Family(corruption=0.0), r"corruption is a part in \(0, 1\], got 0.0"),
    ],
)
def test_bad_options_say_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_schedule_of_its_own_replaces_the_default() -> None:
    assert Family(2.0).factors(step_of(1)) == (1.5,)
    assert Family(2.0, source="null").factors(step_of(1)) == pytest.approx((2 / 3,))
    assert Family(2.0, source="corrupted").factors(step_of(1)) == (2.0,)
    assert Family(2.0, source="corrupted", schedule=Linear()).factors(step_of(1)) == (1.5,)

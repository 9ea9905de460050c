"""CFG-Zero*, TCFG, MAMBO-G, CFG rescale, APG and FDG: written-out formulas, neutral options, the gauge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from guided_runs import GRIDS, maps, run, step_of
from scipy.fft import dctn, idctn
from torch import Tensor
from torch.nn import functional

from hguide.errors import ConfigError
from hguide.grids import Scale, Step
from hguide.guidance import APG, CFG, FDG, MAMBOG, TCFG, CFGZero, Guidance, Rescale, parse
from hguide.guidance.reduced_contrast import ReducedContrast
from hguide.priors import Bilinear
from hguide.streams import COND, UNCOND
from hguide.testing import check_guidance

ORACLE = 1e-4  # float32 beside float64, strengths up to 3
DOUBLE = 1e-11
NEUTRAL = 1e-6

Rule = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(-1, keepdims=True)


def cfg_zero(c: np.ndarray, u: np.ndarray, t: float) -> np.ndarray:
    a = (centred(c) * centred(u)).sum() / ((centred(u) ** 2).sum() + 1e-8)
    return a * u + (1 + t) * (c - a * u)


def tcfg(c: np.ndarray, u: np.ndarray, t: float) -> np.ndarray:
    c, u = centred(c), centred(u)
    first = np.linalg.svd(np.stack([c.ravel(), u.ravel()]), full_matrices=False)[2][0]
    u = ((u.ravel() @ first) * first).reshape(u.shape)
    return u + (1 + t) * (c - u)


def mambo(c: np.ndarray, u: np.ndarray, t: float) -> np.ndarray:
    ratio = np.linalg.norm(centred(c) - centred(u)) / np.linalg.norm(centred(u))
    w = 1 + ((1 + t) - 1) * np.exp(-2.0 * ratio)
    return u + w * (c - u)


def rescale(c: np.ndarray, u: np.ndarray, t: float) -> np.ndarray:
    guided = c + t * (c - u)
    return 0.7 * guided * centred(c).std() / centred(guided).std() + 0.3 * guided


def apg(c: np.ndarray, u: np.ndarray, t: float) -> np.ndarray:
    d = centred(c) - centred(u)
    d = d * min(1.0, 2.0 / np.linalg.norm(d))
    unit = centred(c) / np.linalg.norm(centred(c))
    parallel = (d * unit).sum() * unit
    return c + t * (d - parallel + 0.25 * parallel)


CASES = [
    (CFGZero(3.0), cfg_zero),
    (TCFG(3.0), tcfg),
    (MAMBOG(3.0, alpha=2.0), mambo),
    (Rescale(3.0), rescale),
    (APG(3.0, eta=0.25, radius=2.0), apg),
]


def by_hand(rule: Rule, given: dict, t: float, reduction: str) -> Tensor:
    c, u = given[COND].double().numpy(), given[UNCOND].double().numpy()
    out = np.empty_like(c)
    for place in np.ndindex(c.shape[:1] if reduction == "map" else c.shape[:-1]):
        out[place] = rule(c[place], u[place], t)
    return torch.from_numpy(out)


def equal_to_a_constant(a: Tensor, b: Tensor, atol: float) -> None:
    """Per token, which the softmax does not see."""
    torch.testing.assert_close(a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True), atol=atol, rtol=0)


def with_reduction(guidance: ReducedContrast, reduction: str, **options: Any) -> Any:

    return replace(guidance, reduction=reduction, **options)


@pytest.mark.parametrize("reduction", ["token", "map"])
@pytest.mark.parametrize(("guidance", "rule"), CASES, ids=[str(guidance) for guidance, _ in CASES])
def test_the_written_out_formula(guidance: ReducedContrast, rule: Rule, reduction: str) -> None:
    for k in (1, 2, 3):
        given = maps(k, (COND, UNCOND))
        guided, _ = with_reduction(guidance, reduction).apply(given, step_of(k), {})
        equal_to_a_constant(guided.double(), by_hand(rule, given, float(k), reduction), ORACLE)
        doubles = {stream: logits.double() for stream, logits in given.items()}
        guided, _ = with_reduction(guidance, reduction).apply(doubles, step_of(k), {})
        equal_to_a_constant(guided, by_hand(rule, doubles, float(k), reduction), DOUBLE)


@pytest.mark.parametrize("gauge", ["centred", "log_softmax"])
@pytest.mark.parametrize("reduction", ["token", "map"])
@pytest.mark.parametrize(("guidance", "rule"), CASES, ids=[str(guidance) for guidance, _ in CASES])
def test_a_fixed_gauge_does_not_see_a_constant_per_token(
    guidance: ReducedContrast, rule: Rule, reduction: str, gauge: str
) -> None:
    given = maps(3, (COND, UNCOND))
    draw = torch.Generator().manual_seed(0)
    shifted = {stream: logits + torch.randn(2, 5, 6, 1, generator=draw) for stream, logits in given.items()}
    fixed = with_reduction(guidance, reduction, gauge=gauge)
    a, b = (fixed.apply(each, step_of(3), {})[0] for each in (given, shifted))
    equal_to_a_constant(a, b, ORACLE)


@pytest.mark.parametrize("guidance", [CFGZero(3.0), TCFG(3.0), MAMBOG(3.0), APG(3.0), Rescale(3.0, reduction="map")])
def test_the_raw_gauge_sees_it(guidance: ReducedContrast) -> None:
    raw = with_reduction(guidance, guidance.reduction, gauge="raw")
    given = maps(3, (COND, UNCOND))
    shifted = {COND: given[COND] + torch.arange(6.0)[:, None], UNCOND: given[UNCOND]}
    a, b = (raw.apply(each, step_of(3), {})[0].softmax(-1) for each in (given, shifted))
    assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize("gauge", ["raw", "centred", "log_softmax"])
@pytest.mark.parametrize(
    "guidance",
    [
        *(MAMBOG(alpha=0.0), Rescale(phi=0.0), APG(eta=1.0), APG(eta=1.0, base="null"), APG(eta=1.0, radius=1e6)),
        *(MAMBOG(w=3.0, alpha=0.0), APG(w=3.0, eta=1.0), Rescale(w=3.0, phi=0.0)),
    ],
    ids=str,
)
def test_neutral_options_are_cfg_itself(guidance: ReducedContrast, gauge: str) -> None:
    cfg = CFG(guidance.strength, w=guidance.w)
    guided = run(with_reduction(guidance, "token", gauge=gauge))
    for x, y in zip(guided, run(cfg), strict=True):
        torch.testing.assert_close(x, y, atol=5 * NEUTRAL, rtol=0)


@pytest.mark.parametrize("bands", ["laplacian", "dct"])
@pytest.mark.parametrize("gains", [(1.0,), (1.0, 1.0), (1.0, 1.0, 1.0)])
def test_fdg_with_equal_gains_is_cfg(gains: tuple[float, ...], bands: str) -> None:
    for x, y in zip(run(FDG(2.0, gains=gains, bands=bands)), run(CFG(2.0)), strict=True):
        torch.testing.assert_close(x, y, atol=NEUTRAL, rtol=0)


def test_cfg_zero_and_tcfg_are_cfg_where_the_null_logits_fit() -> None:
    c = maps(2, (COND,))[COND]
    half = {COND: c, UNCOND: 0.5 * c}
    wanted = CFG(1.5).apply(half, step_of(2), {})[0]
    torch.testing.assert_close(TCFG(1.5).apply(half, step_of(2), {})[0], wanted, atol=5 * NEUTRAL, rtol=0)
    same = {COND: c, UNCOND: c}  # a = 1
    torch.testing.assert_close(CFGZero(1.5).apply(same, step_of(2), {})[0], c, atol=5 * NEUTRAL, rtol=0)


@pytest.mark.parametrize("guidance", [CFGZero(), TCFG(), MAMBOG(), Rescale(), APG(), FDG()], ids=str)
def test_at_strength_zero_nothing_is_asked_and_nothing_changes(guidance: Guidance) -> None:
    given = maps(0, (COND, UNCOND))
    assert guidance.asks(COND, step_of(0)) == (COND,)
    assert guidance.apply(given, step_of(0), {})[0] is given[COND]
    assert guidance.asks(COND, step_of(2)) == (COND, UNCOND)
    assert guidance.asks(UNCOND, step_of(2)) == (UNCOND,)
    assert guidance.weights(COND, step_of(2)) == pytest.approx(CFG(1.5).weights(COND, step_of(2)))


@pytest.mark.parametrize("guidance", [CFGZero(), TCFG(), MAMBOG(), Rescale(), APG(radius=1.0), FDG()], ids=str)
def test_logits_of_zero_and_half_precision_are_no_trouble(guidance: Guidance) -> None:
    zero = {COND: torch.zeros(2, 4, 4, 5), UNCOND: torch.zeros(2, 4, 4, 5)}
    assert torch.equal(guidance.apply(zero, step_of(2), {})[0], zero[COND])
    half = {stream: logits.half() for stream, logits in maps(3, (COND, UNCOND)).items()}
    wide = {stream: logits.float() for stream, logits in half.items()}
    guided = guidance.apply(half, step_of(3), {})[0]
    assert torch.equal(guided, guidance.apply(wide, step_of(3), {})[0].half())


@pytest.mark.parametrize("gauge", ["raw", "centred", "log_softmax"])
def test_apgs_momentum_carries_the_contrast_to_the_next_grid(gauge: str) -> None:
    guided = run(APG(2.0, eta=0.0, momentum=-0.5, gauge=gauge))
    average: Tensor | None = None
    for k in range(4):
        given = maps(k, (COND, UNCOND))
        fixed = {
            "raw": given,
            "centred": {s: m - m.mean(-1, keepdim=True) for s, m in given.items()},
            "log_softmax": {s: m.log_softmax(-1) for s, m in given.items()},
        }[gauge]
        difference = fixed[COND] - fixed[UNCOND]
        average = difference if average is None else difference - 0.5 * Bilinear()(average, GRIDS[k])
        c = fixed[COND]
        parallel = (average * c).sum(-1, keepdim=True) / (c * c).sum(-1, keepdim=True) * c
        equal_to_a_constant(guided[k], given[COND] + 2.0 * k / 3 * (average - parallel), ORACLE)


def test_apg_with_momentum_waits_where_it_is_off() -> None:
    guidance = APG(w=3.0, eta=1.0, momentum=0.5, start=0.25, stop=0.75)
    memory: Any = {}
    for k in range(4):
        given = maps(k, (COND, UNCOND))
        asked = guidance.asks(COND, step_of(k))
        guided, memory = guidance.apply({stream: given[stream] for stream in asked}, step_of(k), memory)
        assert (asked == (COND,)) == (k in (0, 3)) == torch.equal(guided, given[COND])


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (5, 6), (9, 4)])
def test_fdg_in_the_dct_weighs_octaves(grid: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(0)
    given = {s: torch.randn(2, *grid, 3, generator=draw) for s in (COND, UNCOND)}
    guided = FDG(w=3.0, gains=[0.25, 1.0, 2.0], bands="dct").apply(given, Step(1, 2, 0, Scale(1, *grid)), {})[0]
    spectrum = dctn((given[COND] - given[UNCOND]).double().numpy(), axes=(1, 2), norm="ortho")
    for y, x in np.ndindex(grid):
        octave = next(
            i for i, part in enumerate((4, 2, 1)) if all(f < -(-n // part) for f, n in zip((y, x), grid, strict=True))
        )
        spectrum[:, y, x] *= 2.0 * (0.25, 1.0, 2.0)[octave]
    wanted = given[COND].double() + torch.from_numpy(idctn(spectrum, axes=(1, 2), norm="ortho"))
    torch.testing.assert_close(guided.double(), wanted, atol=ORACLE, rtol=0)


def smaller(maps_: Tensor) -> Tensor:
    """One reduction of `(b, v, h, w)` maps."""
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=maps_.dtype) / 16.0
    padded = functional.pad(maps_, (2, 2, 2, 2), mode="replicate")
    channels = maps_.shape[1]
    window = torch.outer(kernel, kernel).expand(channels, 1, 5, 5)
    blurred = functional.conv2d(padded, window, groups=channels)
    return larger(blurred, [(n + 1) // 2 for n in maps_.shape[2:]])


def larger(maps_: Tensor, size: Any) -> Tensor:
    return functional.interpolate(maps_, size=tuple(size), mode="bilinear")


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (5, 6), (16, 13)])
def test_fdg_rebuilds_a_laplacian_pyramid(grid: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(0)
    given = {s: torch.randn(2, *grid, 3, dtype=torch.float64, generator=draw) for s in (COND, UNCOND)}
    gains = [0.25, 1.0, 2.0]
    guided = FDG(w=3.0, gains=gains).apply(given, Step(1, 2, 0, Scale(1, *grid)), {})[0]
    levels: dict[Any, list[Tensor]] = {}
    for stream, logits in given.items():
        gaussian = [logits.movedim(-1, 1)]
        for _ in gains[1:]:
            gaussian.append(smaller(gaussian[-1]))
        pairs = pairwise(gaussian)
        levels[stream] = [fine - larger(coarse, fine.shape[2:]) for fine, coarse in pairs] + gaussian[-1:]
    mixed = [
        u + (1.0 + 2.0 * gain) * (c - u)
        for gain, c, u in zip(reversed(gains), levels[COND], levels[UNCOND], strict=True)
    ]
    rebuilt = mixed.pop()
    while mixed:
        finer = mixed.pop()
        rebuilt = finer + larger(rebuilt, finer.shape[2:])
    torch.testing.assert_close(guided, rebuilt.movedim(1, -1), atol=DOUBLE, rtol=0)


@pytest.mark.parametrize(
    "text",
    [
        "apg(2.0, radius=3.0, momentum=-0.5)",
        "apg(w=3.0, base=null, momentum=0.25, prior=nearest, gauge=log_softmax)",
        "apg(1.5, momentum=0.5, reduction=map, start=0.25)",
        "cfg_zero(w=2.0, reduction=map)",
        "tcfg([0.0, 0.5, 1.0, 2.0], gauge=raw)",
        "mambo(constant(2.0), alpha=1.0, reduction=map)",
        "rescale(2.0, phi=1.0, reduction=map, schedule=constant)",
        "fdg(w=2.0, gains=[1.0, 2.0, 3.0], bands=dct, stop=0.5)",
        "apg(momentum=0.5) | ssg(0.5)",
        "fdg + ssg",
    ],
)
def test_options_pass_the_contract(text: str) -> None:
    check_guidance(parse(text))


def test_sums_over_a_map_need_full_maps() -> None:
    assert CFGZero().partial
    assert not CFGZero(reduction="map").partial
    assert not FDG().partial
    assert not (CFG() | CFGZero(reduction="map")).partial


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: APG(1.5, w=3.0), "not both"),
        (lambda: TCFG(float("inf")), "strength is finite"),
        (lambda: CFGZero(gauge="softmax"), "unknown gauge 'softmax': did you mean 'log_softmax'"),
        (lambda: CFGZero(reduction="maps"), "unknown reduction 'maps': did you mean 'map'"),
        (
            lambda: APG(radius=-1.0, momentum=1.0),
            r"radius is a finite number >= 0, got -1.0; momentum lies in \(-1, 1\)",
        ),
        (lambda: APG(base="nul"), "unknown base 'nul': did you mean 'null'"),
        (lambda: MAMBOG(alpha=-1.0), "alpha is a finite number >= 0, got -1.0"),
        (lambda: Rescale(phi=1.5), r"phi lies in \[0, 1\], got 1.5"),
        (lambda: FDG(gains=()), r"gains are finite numbers, one per band, got \[\]"),
        (lambda: FDG(bands="dtc"), "unknown bands 'dtc': did you mean 'dct'"),
    ],
)
def test_bad_options_say_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()

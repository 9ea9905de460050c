"""IGG: a dense float64 oracle, its limits, its options and its memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from guided_runs import GRIDS, maps, run, step_of
from torch import Tensor

from hguide.errors import ConfigError
from hguide.grids import Scale, Step
from hguide.guidance import CFG, IGG, parse
from hguide.schedules import Constant
from hguide.streams import COND, UNCOND
from hguide.testing import check_guidance

DENSE = 2e-5  # float32 beside float64
EXACT = 1e-12  # float64 beside float64
LIMIT = 1e-6


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def in_gauge(logits: np.ndarray, gauge: str) -> np.ndarray:
    if gauge == "centred":
        return logits - logits.mean(-1, keepdims=True)
    return np.log(softmax(logits)) if gauge == "log_softmax" else logits


def attended(n: np.ndarray, keys: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """One token after the other, (tokens, v)."""
    rows = []
    for i, row in enumerate(n):
        scores = np.array([row @ key for key in keys]) / np.sqrt(n.shape[-1])
        if mask is not None:
            scores = np.where(mask[i], scores, -np.inf)
        rows.append(sum(weight * key for weight, key in zip(softmax(scores), keys, strict=True)))
    return np.stack(rows)


def oracle(k: int, w: float, s: float | None = None, gauge: str = "raw", seed: int = 0) -> Tensor:
    given = maps(k, (COND, UNCOND), seed)
    c, u = (given[stream].double().flatten(1, 2).numpy() for stream in (COND, UNCOND))
    r = k / (len(GRIDS) - 1)
    guided = []
    for one, other in zip(c, u, strict=True):
        n = in_gauge(one, gauge) - in_gauge(other, gauge)
        mixed = 0.0 if s is None else (1 + r * s) * n
        guided.append(other + mixed + (1 + r * w) * attended(n, n))
    return torch.from_numpy(np.stack(guided)).unflatten(1, GRIDS[k])


@pytest.mark.parametrize("gauge", ["raw", "centred", "log_softmax"])
@pytest.mark.parametrize("s", [None, 1.5])
def test_igg_is_the_written_out_formula(gauge: str, s: float | None) -> None:
    guided = run(IGG(3.0, cfg=s, gauge=gauge))
    for k in range(4):
        torch.testing.assert_close(guided[k].double(), oracle(k, 3.0, s, gauge), atol=DENSE, rtol=0)


def test_float64_logits_stay_float64() -> None:
    given = {stream: logits.double() for stream, logits in maps(2, (COND, UNCOND)).items()}
    guided, _ = IGG(2.0).apply(given, step_of(2), {})
    torch.testing.assert_close(guided, oracle(2, 2.0), atol=EXACT, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    given = {stream: logits.to(dtype) for stream, logits in maps(3, (COND, UNCOND)).items()}
    wide = {stream: logits.float() for stream, logits in given.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        guided, _ = IGG(2.0).apply(given, step_of(3), {})
    assert torch.equal(guided, IGG(2.0).apply(wide, step_of(3), {})[0].to(dtype))


def signals(n: Tensor, k: int, w: float = 2.0) -> Tensor:
    """IGG of u = 0 and c = n, less its factor: g itself."""
    step = Step(k, 4, 0, Scale(k, n.shape[1], n.shape[2]))
    return IGG(w).apply({COND: n, UNCOND: torch.zeros_like(n)}, step, {})[0] / (1 + w * k / 3)


def test_where_tokens_align_with_themselves_it_is_cfg() -> None:
    n = 30.0 * torch.randn(2, 4, 4, 400)
    given = {COND: n, UNCOND: torch.randn(2, 4, 4, 400)}
    given[COND] = given[UNCOND] + n
    wanted = CFG(2.0).apply(given, step_of(2), {})[0]
    torch.testing.assert_close(IGG(2.0).apply(given, step_of(2), {})[0], wanted, atol=1e-4, rtol=0)


def test_where_the_contrast_vanishes_it_is_the_mean_over_the_tokens() -> None:
    n = 1e-4 * torch.randn(2, 4, 4, 50, dtype=torch.float64)
    mean = n.mean((1, 2), keepdim=True).expand_as(n)
    torch.testing.assert_close(signals(n, 2), mean, atol=1e-7 * 1e-4, rtol=1e-3)


def test_one_token_is_its_own_guidance_and_at_the_first_step_the_given_logits() -> None:
    n = torch.randn(2, 1, 1, 5)
    torch.testing.assert_close(signals(n, 2), n, atol=LIMIT, rtol=0)
    given = maps(0, (COND, UNCOND))
    torch.testing.assert_close(IGG(7.0).apply(given, step_of(0), {})[0], given[COND], atol=LIMIT, rtol=0)


def test_a_weak_token_takes_the_row_it_aligns_with_most_unlike_cfg() -> None:
    strong = 100.0 * torch.eye(3, 8)
    n = torch.stack([strong[0], 0.5 * strong[0], strong[1], strong[2]]).reshape(1, 2, 2, 8)
    g = signals(n, 2).flatten(1, 2)[0]
    torch.testing.assert_close(g[[0, 2, 3]], strong, atol=1e-4, rtol=0)
    torch.testing.assert_close(g[1], strong[0], atol=1e-4, rtol=0)  # not its own row, half as long
    cfg = CFG(2.0).apply({COND: n, UNCOND: torch.zeros_like(n)}, step_of(2), {})[0]
    assert not torch.allclose(cfg, IGG(2.0).apply({COND: n, UNCOND: torch.zeros_like(n)}, step_of(2), {})[0], atol=1.0)


def test_it_is_equivariant_under_permutations_of_the_tokens() -> None:
    given = maps(3, (COND, UNCOND))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    moved = {stream: logits.flatten(1, 2)[:, order].unflatten(1, (5, 6)) for stream, logits in given.items()}
    guided = IGG(2.0).apply(given, step_of(3), {})[0].flatten(1, 2)[:, order]
    torch.testing.assert_close(IGG(2.0).apply(moved, step_of(3), {})[0].flatten(1, 2), guided, atol=DENSE, rtol=0)


@pytest.mark.parametrize("gauge", ["centred", "log_softmax"])
def test_a_fixed_gauge_does_not_see_a_constant_per_token(gauge: str) -> None:
    given = maps(3, (COND, UNCOND))
    shifted = {stream: logits + 5.0 * torch.randn(2, 5, 6, 1) for stream, logits in given.items()}
    for guidance, same in ((IGG(2.0, gauge=gauge), True), (IGG(2.0), False)):
        a, b = (guidance.apply(each, step_of(3), {})[0].softmax(-1) for each in (given, shifted))
        assert torch.allclose(a, b, atol=1e-5) is same


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("chunk", [1, 4, 7, 30, 100])
def test_blocks_of_rows_change_nothing(chunk: int, window: int) -> None:
    whole, parts = run(IGG(2.0, window=window)), run(IGG(2.0, window=window, chunk=chunk))
    for x, y in zip(whole, parts, strict=True):
        torch.testing.assert_close(x, y, atol=DENSE, rtol=0)


def test_a_window_masks_all_but_the_square_around_a_token() -> None:
    given = maps(3, (COND, UNCOND))
    places = np.array([(y, x) for y in range(5) for x in range(6)])
    mask = np.abs(places[:, None] - places[None]).max(-1) <= 1
    n = (given[COND] - given[UNCOND]).double().flatten(1, 2).numpy()
    wanted = given[UNCOND].double() + 3.0 * torch.from_numpy(
        np.stack([attended(each, each, mask) for each in n])
    ).unflatten(1, (5, 6))
    guided = IGG(2.0, window=3).apply(given, step_of(3), {})[0]
    torch.testing.assert_close(guided.double(), wanted, atol=DENSE, rtol=0)
    wide = IGG(2.0, window=11).apply(given, step_of(3), {})[0]
    torch.testing.assert_close(wide, IGG(2.0).apply(given, step_of(3), {})[0], atol=DENSE, rtol=0)


def test_the_cross_step_term_attends_to_the_contrast_of_the_step_before() -> None:
    guided = run(IGG(2.0, cross=0.5))
    contrasts = [maps(k, (COND, UNCOND)) for k in range(4)]
    before = None
    for k, given in enumerate(contrasts):
        own = (given[COND] - given[UNCOND]).double().flatten(1, 2).numpy()
        r, rows = k / 3, []
        for i in range(2):
            n = own[i] if before is None else own[i] + 0.5 * r * attended(own[i], before[i])
            rows.append((1 + 2.0 * r) * attended(n, n))
        wanted = given[UNCOND].double() + torch.from_numpy(np.stack(rows)).unflatten(1, GRIDS[k])
        torch.testing.assert_close(guided[k].double(), wanted, atol=DENSE, rtol=0)
        before = own


def test_a_temperature_in_place_of_the_root_covers_pairs_of_bits() -> None:
    d = torch.randn(2, 4, 4, 6, dtype=torch.float64)
    pairs = torch.stack([-d / 2, d / 2], -1).flatten(-2)
    both = IGG().grounded(pairs).unflatten(-1, (6, 2))
    wanted = both[..., 1] - both[..., 0]
    torch.testing.assert_close(IGG(temperature=2 * 12**0.5).grounded(d), wanted, atol=EXACT, rtol=0)


def test_the_linear_shadow_is_that_of_cfg() -> None:
    for k in range(4):
        assert IGG(3.0).weights(COND, step_of(k)) == pytest.approx({COND: 1 + k, UNCOND: -k})
        mixed = IGG(3.0, cfg=1.5).weights(COND, step_of(k))
        assert mixed == pytest.approx({COND: 2 + 1.5 * k, UNCOND: -1 - 1.5 * k})
    assert IGG().asks(COND, step_of(0)) == (COND, UNCOND)
    assert IGG().asks(UNCOND, step_of(2)) == (UNCOND,)


def test_a_strength_is_a_number_a_schedule_or_a_list() -> None:
    listed, scheduled = run(IGG((0.0, 1.0, 2.0, 3.0))), run(IGG(Constant(2.0)))
    torch.testing.assert_close(listed, run(IGG(3.0)), atol=LIMIT, rtol=0)
    torch.testing.assert_close(scheduled, run(IGG((2.0, 2.0, 2.0, 2.0))), atol=LIMIT, rtol=0)


@pytest.mark.parametrize(
    "text",
    [
        "igg(3.0, cfg=1.5)",
        "igg(2.0, gauge=centred, window=3, chunk=2)",
        "igg(1.0, cross=1.0, start=0.25)",
        "igg([0.0, 1.0, 2.0, 3.0], cfg=linear(2.0), schedule=constant, temperature=4.0)",
        "igg | ssg(0.5)",
    ],
)
def test_options_pass_the_contract(text: str) -> None:
    check_guidance(parse(text))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IGG(float("nan")), "strength is finite"),
        (lambda: IGG(cfg=(1.0, float("inf"))), "cfg is finite"),
        (lambda: IGG(gauge="centered"), "unknown gauge 'centered': did you mean 'centred'"),
        (lambda: IGG(window=4, chunk=-1), "window is an odd number.*got 4; chunk is a number of rows, or 0, got -1"),
        (lambda: IGG(temperature=0.0), "temperature is positive and finite"),
    ],
)
def test_bad_options_say_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.slow
def test_a_64x64_grid_with_4096_channels_fits() -> None:
    """Three maps of 64 MiB and blocks of scores; the whole matrix of scores would be 64 MiB per sample more."""
    given = {stream: torch.randn(1, 64, 64, 4096) for stream in (COND, UNCOND)}
    guided = IGG(2.0).apply(given, Step(2, 4, 0, Scale(2, 64, 64)), {})[0]
    n = (given[COND] - given[UNCOND]).flatten(1, 2)[0]
    wanted = (n[:5] @ n.T / 64.0).softmax(-1) @ n * (1 + 2.0 * 2 / 3) + given[UNCOND].flatten(1, 2)[0, :5]
    torch.testing.assert_close(guided.flatten(1, 2)[0, :5], wanted, atol=1e-3, rtol=1e-4)

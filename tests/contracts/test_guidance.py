"""CFG, SSG and their composition: against written-out formulas, and laws by hypothesis."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from guided_runs import ATOL, CORRUPT, FOUR, GRIDS, Corrupted, Weak, maps, run, step_of
from torch import Tensor

from hguide.errors import ConfigError
from hguide.grids import Scale, Step
from hguide.guidance import (
    CFG,
    SSG,
    Chain,
    Method,
    Predictor,
    Sum,
    from_callable,
    parse,
    registry,
)
from hguide.priors import DSE, Nearest
from hguide.schedules import Constant, Linear, Table
from hguide.streams import COND, UNCOND, Stream
from hguide.testing import check_guidance


@pytest.mark.parametrize("name", registry.names())
def test_every_registered_guidance_passes_the_contract_with_its_defaults(name: str) -> None:
    check_guidance(registry.get(name)())


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "cfg(w=3.0)",
        "cfg(2.0, start=0.25, stop=0.75)",
        "cfg | ssg",
        "cfg + ssg",
        "ssg | cfg",
        "cfg | ssg(0.8, prior=dse(gain=amplitude), schedule=cosine)",
        "ssg([0.0, 0.5, 0.25, 1.0], prior=bicubic)",
        "ssg(constant(0.3), remember=output)",
        "ssg(remember=mean, decay=0.25)",
        "ssg(stride=2, prior=nearest)",
        "ssg(0.5, start=0.5)",
        "cfg | (cfg(1.0) + ssg(0.5)) | ssg",
    ],
)
def test_compositions_pass_the_contract(text: str) -> None:
    check_guidance(parse(text))


@pytest.mark.parametrize("k", range(4))
def test_cfg_is_vars_ramp(k: int) -> None:
    given_maps = maps(k, (COND, UNCOND))
    t = 3.0 * k / 3
    wanted = (1 + t) * given_maps[COND] - t * given_maps[UNCOND]
    torch.testing.assert_close(CFG(3.0).apply(given_maps, step_of(k), {})[0], wanted, atol=ATOL, rtol=0)


@pytest.mark.parametrize("k", range(4))
def test_cfg_with_w_is_the_rule_of_diffusers(k: int) -> None:
    given_maps = maps(k, (COND, UNCOND))
    wanted = given_maps[UNCOND] + 3.0 * (given_maps[COND] - given_maps[UNCOND])
    torch.testing.assert_close(CFG(w=3.0).apply(given_maps, step_of(k), {})[0], wanted, atol=ATOL, rtol=0)


def test_cfg_asks_for_the_null_stream_only_where_its_weight_is_not_zero() -> None:
    asked = [CFG(1.5).asks(COND, step_of(k)) for k in range(4)]
    assert asked == [(COND,), (COND, UNCOND), (COND, UNCOND), (COND, UNCOND)]
    assert CFG(0.0).asks(COND, step_of(3)) == (COND,)
    assert CFG(w=1.0).asks(COND, step_of(3)) == (COND,)


def test_cfg_is_the_identity_on_the_null_stream() -> None:
    given_maps = maps(2, (COND, UNCOND))
    assert CFG(3.0).apply(given_maps, step_of(2), {}, UNCOND)[0] is given_maps[UNCOND]


def test_ssg_is_equation_8_with_the_prior_of_algorithm_1() -> None:
    guided = run(SSG(0.8))
    for k in range(4):
        logits = maps(k, (COND, UNCOND))[COND]
        if k == 0:
            assert torch.equal(guided[0], logits)
            continue
        previous = maps(k - 1, (COND, UNCOND))[COND]
        beta = 0.8 * (1 - k / 4)
        wanted = logits + beta * (logits - DSE().reference(previous, GRIDS[k], step_of(k)))
        torch.testing.assert_close(guided[k], wanted, atol=ATOL, rtol=0)


def test_ssg_after_cfg_remembers_the_logits_after_cfg() -> None:
    guided = run(CFG(1.5) | SSG(1.0))
    mixed = run(CFG(1.5))
    for k in (1, 2, 3):
        prior = DSE()(mixed[k - 1], GRIDS[k])
        wanted = mixed[k] + (1 - k / 4) * (mixed[k] - prior)
        torch.testing.assert_close(guided[k], wanted, atol=ATOL, rtol=0)


def test_remember_output_is_the_recursion() -> None:
    guided = run(SSG(Constant(0.5), prior=Nearest(), remember="output"))
    previous = None
    for k in range(4):
        logits = maps(k, (COND, UNCOND))[COND]
        wanted = logits if previous is None else 1.5 * logits - 0.5 * Nearest()(previous, GRIDS[k])
        torch.testing.assert_close(guided[k], wanted, atol=ATOL, rtol=0)
        previous = wanted


def test_remember_mean_is_the_running_mean() -> None:
    guided = run(SSG(Constant(0.5), prior=Nearest(), remember="mean", decay=0.25))
    mean = None
    for k in range(4):
        logits = maps(k, (COND, UNCOND))[COND]
        wanted = logits if mean is None else 1.5 * logits - 0.5 * Nearest()(mean, GRIDS[k])
        torch.testing.assert_close(guided[k], wanted, atol=ATOL, rtol=0)
        mean = logits if mean is None else 0.25 * Nearest()(mean, GRIDS[k]) + 0.75 * logits


def test_stride_reaches_further_back() -> None:
    guided = run(SSG(Constant(0.5), prior=Nearest(), stride=2))
    for k in range(4):
        logits = maps(k, (COND, UNCOND))[COND]
        wanted = logits
        if k >= 2:
            wanted = 1.5 * logits - 0.5 * Nearest()(maps(k - 2, (COND, UNCOND))[COND], GRIDS[k])
        torch.testing.assert_close(guided[k], wanted, atol=ATOL, rtol=0)


def test_off_remembers_and_a_late_start_uses_it() -> None:
    whole, late = run(SSG(1.0)), run(SSG(1.0, start=0.5))
    for k in range(4):
        expected = whole[k] if k >= 2 else maps(k, (COND, UNCOND))[COND]
        torch.testing.assert_close(late[k], expected, atol=ATOL, rtol=0)


def test_cfg_then_vpg_asks_for_four_streams_with_the_published_weights() -> None:
    t, lam = 1.5, 0.7
    chain = CFG(Constant(t)) | Corrupted(lam)
    assert chain.asks(COND, step_of(2)) == (COND, UNCOND, CORRUPT, CORRUPT.null)
    weights = chain.weights(COND, step_of(2))
    wanted = {COND: (1 + t) * (1 + lam), UNCOND: -t * (1 + lam), CORRUPT: -lam * (1 + t), CORRUPT.null: lam * t}
    assert weights == pytest.approx(wanted)
    given_maps = maps(2, FOUR)
    clean = (1 + t) * given_maps[COND] - t * given_maps[UNCOND]
    corrupt = (1 + t) * given_maps[CORRUPT] - t * given_maps[CORRUPT.null]
    guided = chain.apply(given_maps, step_of(2), {})[0]
    torch.testing.assert_close(guided, clean + lam * (clean - corrupt), atol=ATOL, rtol=0)


def test_a_sum_adds_increments_and_asks_for_three() -> None:
    both = CFG(Constant(1.5)) + Corrupted(0.7)
    assert both.asks(COND, step_of(2)) == (COND, UNCOND, CORRUPT)
    given_maps = maps(2, FOUR)
    base = given_maps[COND]
    wanted = base + 1.5 * (base - given_maps[UNCOND]) + 0.7 * (base - given_maps[CORRUPT])
    torch.testing.assert_close(both.apply(given_maps, step_of(2), {})[0], wanted, atol=ATOL, rtol=0)


def test_each_intermediate_is_evaluated_once_per_step() -> None:
    calls: list[Stream] = []

    @dataclass(frozen=True)
    class Counted(Method):
        def evaluate(self, f: Predictor, stream: Stream, step: Step, remembered: Any) -> tuple[Tensor, Any]:
            calls.append(stream)
            return f(stream) * 1.0, None

    chain = Counted() | (CFG(Constant(1.0)) + SSG(0.5)) | Corrupted()
    chain.apply(maps(2, FOUR), step_of(2), {})
    assert sorted(map(str, calls)) == sorted(map(str, FOUR))


def test_equal_streams_return_the_input_bit_for_bit() -> None:
    same = torch.randn(2, 4, 4, 5)
    chain = CFG(w=7.3) | Corrupted(0.37) | Weak(1.9)
    streams = chain.asks(COND, step_of(2))
    assert len(streams) == 8
    assert torch.equal(chain.apply(dict.fromkeys(streams, same), step_of(2), {})[0], same)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits_are_combined_in_float32(dtype: torch.dtype) -> None:
    c, u = torch.randn(2, 4, 4, 5).to(dtype), torch.randn(2, 4, 4, 5).to(dtype)
    guided = CFG(w=3.0).apply({COND: c, UNCOND: u}, step_of(2), {})[0]
    assert guided.dtype == dtype
    assert torch.equal(guided, (u.float() + 3.0 * (c.float() - u.float())).to(dtype))


def test_chain_and_sum_flatten() -> None:
    assert (CFG() | SSG() | CFG(2.0)).stages == (CFG(), SSG(), CFG(2.0))
    assert isinstance(CFG() + SSG(), Sum)
    assert isinstance((CFG() | SSG()), Chain)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SSG(-0.5), "strength is a finite number >= 0, got -0.5"),
        (lambda: SSG((0.1, -1.0)), "strength is a finite number >= 0"),
        (lambda: SSG(remember="inptu"), "unknown remember 'inptu': did you mean 'input'"),
        (lambda: SSG(stride=0, decay=1.0), "stride is at least 1, got 0; decay lies in"),
        (lambda: CFG(1.5, w=3.0), "not both"),
        (lambda: CFG(float("nan")), "strength is finite"),
        (lambda: CFG(start=0.5, stop=0.25), "0 <= start <= stop <= 1"),
    ],
)
def test_bad_options_say_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_schedule_that_turns_ssg_negative_stops_with_the_step() -> None:
    with pytest.raises(ConfigError, match="gives -1 at step 2"):
        run(SSG(Table((0.0, 0.5, -1.0, 0.0))))


def test_a_list_of_another_length_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="2.*4|4.*2"):
        run(SSG((0.5, 0.5)))


def test_cfg_ramp_needs_two_steps() -> None:
    with pytest.raises(ConfigError, match="constant"):
        CFG(1.5).asks(COND, Step(0, 1, 0, Scale(0, 4, 4)))


def test_from_callable_composes_and_checks_what_the_function_returns() -> None:
    cfg = from_callable(lambda c, u, step: u + 3.0 * (c - u))
    given_maps = maps(2, (COND, UNCOND))
    wanted = CFG(w=3.0).apply(given_maps, step_of(2), {})[0]
    torch.testing.assert_close(cfg.apply(given_maps, step_of(2), {})[0], wanted, atol=ATOL, rtol=0)
    check_guidance(cfg | SSG(0.5))
    wrong = from_callable(lambda c, u, step: c[..., :2])
    with pytest.raises(ConfigError, match=r"returns logits of shape \(2, 4, 4, 5\), got \(2, 4, 4, 2\)"):
        wrong.apply(given_maps, step_of(2), {})


def test_a_strength_may_be_a_schedule_used_as_it_is() -> None:
    for k in range(4):
        assert SSG(Linear(0.5)).beta(step_of(k)) == pytest.approx(0.5 * (1 - k / 4))
        assert SSG(Constant(0.5)).beta(step_of(k)) == 0.5
        assert SSG(0.5, schedule=Constant(2.0)).beta(step_of(k)) == 1.0


@pytest.mark.parametrize("name", registry.names())
def test_every_method_says_its_formula_its_source_and_what_is_known_of_it(name: str) -> None:
    text = inspect.getdoc(registry.get(name)) or ""
    assert " = " in text.partition("Args:")[0]
    source = " ".join(text.partition("Source:")[2].split())
    assert re.search(r"arXiv \d{4}\.\d{5}|diffusers", source)
    assert re.search(r"\*(stated|second-hand|reconstructed)\*", text, re.IGNORECASE)

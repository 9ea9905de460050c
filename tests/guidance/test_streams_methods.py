"""Methods with one contrast stream: streams, weights and guided logits against written-out formulas; texts."""

from __future__ import annotations

import pytest
import torch
from guided_runs import ATOL, maps, step_of

from hguide import COND, UNCOND, Corruption, Perturbation, Stream
from hguide.backends.toy import ToyGenerator
from hguide.errors import ConfigError, HGuideError, StreamError
from hguide.generate import generate
from hguide.guidance import CFG, PAG, SEG, SLG, VPG, AutoGuidance, Guidance, SoftCFG, parse
from hguide.testing import check_guidance

CORRUPT = COND.corrupted(Corruption(0.1))
WEAK = COND.by("weak")
IDENTITY = COND.perturbed(Perturbation("pag"))
SKIPPED = COND.perturbed(Perturbation("slg"))
BLURRED = COND.perturbed(Perturbation("seg", options=(("sigma", float("inf")),)))
SOFT = UNCOND.perturbed(Perturbation("soft", options=(("step_norm", 1.0),)))

ONE = {
    "vpg(3.0)": (CORRUPT, 3.0),
    "autoguidance(1.5)": (WEAK, 1.5),
    "autoguidance(1.5, model=small)": (COND.by("small"), 1.5),
    "pag(2.0)": (IDENTITY, 2.0),
    "slg(2.0)": (SKIPPED, 2.0),
    "seg(2.0)": (BLURRED, 2.0),
    "softcfg(2.0)": (SOFT, 2.0 * 2 / 3),
    "vpg(linear(0.8))": (CORRUPT, 0.8 * (1 - 2 / 4)),
    "pag(2.0, schedule=ramp)": (IDENTITY, 2.0 * 2 / 3),
    "slg([0.0, 0.5, 0.25, 1.0])": (SKIPPED, 0.25),
    "softcfg(0.7, schedule=constant)": (SOFT, 0.7),
}


@pytest.mark.parametrize("text", ONE)
def test_one_contrast(text: str) -> None:
    other, strength = ONE[text]
    guidance, step = parse(text), step_of(2)
    assert guidance.linear
    assert guidance.asks(COND, step) == (COND, other)
    assert guidance.weights(COND, step) == pytest.approx({COND: 1 + strength, other: -strength})
    given = maps(2, (COND, other))
    wanted = given[COND] + strength * (given[COND] - given[other])
    torch.testing.assert_close(guidance.apply(given, step, {})[0], wanted, atol=ATOL, rtol=0)


def test_cfg_then_vpg_takes_four_streams() -> None:
    """g = (1+t) l(given) - t l(null) of each prefix, then g + lambda (g - g_corrupted)."""
    step, strength = step_of(3), 1.8
    guidance = CFG(1.5) | VPG(strength)
    four = (COND, UNCOND, CORRUPT, CORRUPT.null)
    assert set(guidance.asks(COND, step)) == set(four)
    assert guidance.asks(COND, step)[0] == COND
    given, t = maps(3, four), 1.5
    clean = (1 + t) * given[COND] - t * given[UNCOND]
    corrupted = (1 + t) * given[CORRUPT] - t * given[CORRUPT.null]
    wanted = clean + strength * (clean - corrupted)
    torch.testing.assert_close(guidance.apply(given, step, {})[0], wanted, atol=10 * ATOL, rtol=0)
    weights = {
        COND: (1 + t) * (1 + strength),
        UNCOND: -t * (1 + strength),
        CORRUPT: -(1 + t) * strength,
        CORRUPT.null: t * strength,
    }
    assert guidance.weights(COND, step) == pytest.approx(weights)


def test_cfg_plus_pag_takes_three_streams() -> None:
    """The rule of diffusers: u + w (c - u) + s (c - c_perturbed)."""
    step, w, s = step_of(2), 3.0, 0.7
    guidance = parse(f"cfg(w={w}) + pag({s})")
    three = (COND, UNCOND, IDENTITY)
    assert guidance.asks(COND, step) == three
    given = maps(2, three)
    wanted = given[UNCOND] + w * (given[COND] - given[UNCOND]) + s * (given[COND] - given[IDENTITY])
    torch.testing.assert_close(guidance.apply(given, step, {})[0], wanted, atol=10 * ATOL, rtol=0)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("cfg | vpg", 4),
        ("cfg + vpg", 3),
        ("cfg | pag", 4),
        ("cfg + pag + slg + seg", 5),
        ("cfg | autoguidance", 4),
        ("cfg | vpg | pag", 8),
        ("softcfg | vpg", 4),
        ("softcfg + pag", 3),
        ("pag | pag", 2),
        ("pag | slg", 3),
        ("cfg | softcfg", 3),
    ],
)
def test_what_compositions_cost(text: str, count: int) -> None:
    """On a stream whose field it would change is changed already, a method is the identity."""
    assert len(parse(text).asks(COND, step_of(2))) == count


@pytest.mark.parametrize(
    "guidance",
    [VPG(0.0), VPG(2.0, proportion=0.0), AutoGuidance(0.0), PAG(0.0), SLG(0.0), SEG(0.0), SoftCFG(0.0)],
    ids=str,
)
def test_neutral_strengths_ask_for_nothing(guidance: Guidance) -> None:
    given = maps(2, (COND,))
    assert guidance.asks(COND, step_of(2)) == (COND,)
    assert guidance.apply(given, step_of(2), {})[0] is given[COND]


def test_vpg_leaves_the_first_step_which_has_no_prefix() -> None:
    assert VPG(3.0).asks(COND, step_of(0)) == (COND,)
    assert VPG(3.0).weights(COND, step_of(0)) == {COND: 1.0}


def test_the_stream_carries_all_options() -> None:
    options = VPG(1.0, 0.2, redraw=True, queries=True).asks(COND, step_of(1))[1]
    assert options.prefix == Corruption(0.2, redraw=True, queries=True)
    assert PAG(1.0, layers=[3, 1]).asks(COND, step_of(1))[1].perturb == Perturbation("pag", (1, 3))
    assert SEG(1.0, sigma=2.0).asks(COND, step_of(1))[1].perturb == Perturbation("seg", (), (("sigma", 2.0),))
    raw = SoftCFG(1.0, step_norm=False).asks(COND, step_of(1))[1]
    assert raw == UNCOND.perturbed(Perturbation("soft", (), (("step_norm", 0.0),)))


def test_streams_say_what_they_are() -> None:
    texts = {
        str(stream)
        for stream in (
            COND.corrupted(Corruption(0.1)),
            COND.corrupted(Corruption(0.1, redraw=True)),
            COND.corrupted(Corruption(0.1, queries=True)),
            COND.perturbed(Perturbation("seg", (1, 2), (("sigma", 2.0),))),
            COND.perturbed(Perturbation("seg", (1, 2), (("sigma", 3.0),))),
        )
    }
    assert len(texts) == 5
    assert "given, perturbed by seg (sigma=2) in layers 1,2" in texts
    assert "given, prefix corrupted 0.1 with queries" in texts


@pytest.mark.parametrize(
    "text",
    [
        "vpg(2.4, proportion=0.2, redraw=true)",
        "vpg(linear(1.5), queries=true, start=0.25)",
        "autoguidance([0.0, 1.0, 1.0, 0.5], model=small)",
        "pag(0.5, layers=[1, 2], stop=0.75)",
        "seg(1.0, layers=[0], sigma=1.5)",
        "softcfg(1.0, step_norm=false, schedule=constant)",
        "cfg | vpg",
        "(cfg + pag) | ssg",
        "(cfg | autoguidance) + slg",
    ],
)
def test_options_and_compositions_pass_the_contract(text: str) -> None:
    check_guidance(parse(text))


@pytest.mark.parametrize("text", ["seg", "seg(sigma=inf)", "seg(sigma=1e12)", "seg(sigma=0)"])
def test_the_text_of_sigma(text: str) -> None:
    assert parse(str(parse(text))) == parse(text)


def test_published_strengths() -> None:
    assert VPG.published("var-d16") == VPG(3.0, 0.1)
    assert VPG.published("infinitystar-8b") == VPG(0.25, 0.05)
    with pytest.raises(ConfigError, match="no published strength for 'var-d17': did you mean 'var-d16'"):
        VPG.published("var-d17")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vpg(1.0, proportion=1.5)", "proportion is a part between 0 and 1, got 1.5"),
        ("vpg(1.0, schedule=3)", "schedule"),
        ("autoguidance(model=main)", "'main' is the guided model itself"),
        ("pag(layers=[1, 1])", r"different whole numbers from 0, got \[1, 1\]"),
        ("slg(layers=[-1])", r"different whole numbers from 0, got \[-1\]"),
        ("slg(layers=[0.5])", "a whole number"),
        ("seg(sigma=-1)", "sigma is a number >= 0 or inf, got -1"),
        ("seg(sigma=large)", "sigma is a number >= 0 or inf, got 'large'"),
        ("softcfg(step_nrom=false)", "did you mean 'step_norm'"),
        ("pag(1e999)", "strength is finite"),
    ],
)
def test_options_that_cannot_work(text: str, message: str) -> None:
    with pytest.raises(HGuideError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cfg | pag", r"perturbed by pag\), which toy refuses: it serves no perturbation 'pag' \(served: halved\)"),
        ("softcfg", "null, perturbed by soft .*toy refuses"),
        ("autoguidance", "asks for the stream .*of model 'weak'.*models has no 'weak'"),
    ],
)
def test_what_a_generator_does_not_serve_is_refused(text: str, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        generate(ToyGenerator(), 1, text, seeds=[0])


def test_layers_where_a_generator_has_none() -> None:
    with pytest.raises(StreamError, match="its perturbations take no layers, asked for 2"):
        _generate_toy(COND.perturbed(Perturbation("halved", (2,))))


def _generate_toy(stream: Stream) -> None:
    from hguide.guidance import from_callable

    generate(ToyGenerator(), 1, from_callable(lambda base, other, step: base, asks=(stream,)), seeds=[0])


def test_a_generator_that_serves_corruption_runs_vpg() -> None:
    toy = ToyGenerator()
    plain, guided = (generate(toy, 1, text, seeds=range(8)) for text in ("cfg", "cfg | vpg(2.0, proportion=0.5)"))
    assert not torch.equal(plain, guided)
    assert torch.equal(generate(toy, 1, "cfg | vpg(2.0, proportion=0.0)", seeds=range(8)), plain)


def test_a_foreign_loop_refuses_other_streams() -> None:
    import hguide

    for text in ("vpg", "pag", "softcfg", "autoguidance"):
        with pytest.raises(HGuideError, match="adapter that serves it"):
            hguide.Guide(text, scales=[1, 2, 3])

"""The text form: what it says, how it is printed, and that every error points at its character."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hguide.errors import ParseError
from hguide.guidance import CFG, SSG, Guidance, Identity, parse, parse_prior, parse_schedule, registry, text_of
from hguide.priors import DSE, Bicubic, LowPass, Nearest
from hguide.schedules import Constant, Cosine, Linear, Power, Ramp, Table


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("none", Identity()),
        ("cfg", CFG(1.5)),
        ("cfg(2)", CFG(2.0)),
        (" cfg ( 1.5 )", CFG(1.5)),
        ("cfg(w=3)", CFG(w=3.0)),
        ("cfg([0, 1.5, 2e0])", CFG((0.0, 1.5, 2.0))),
        ("cfg(ramp(2.0, hold_last=true))", CFG(Ramp(2.0, hold_last=True))),
        ("cfg(1.5, schedule=constant)", CFG(1.5, schedule=Constant())),
        ("ssg(0.8, prior=dse(gain=amplitude), schedule=linear)", SSG(0.8, prior=DSE(gain="amplitude"))),
        ("ssg(prior=dse(dft, bicubic, zero, 1.25))", SSG(prior=DSE("dft", "bicubic", "zero", 1.25))),
        (
            "ssg(prior=nearest, schedule=cosine(0.5), start=0.25)",
            SSG(prior=Nearest(), schedule=Cosine(0.5), start=0.25),
        ),
        ("ssg(table([0, 0.5]), remember=output)", SSG(Table((0.0, 0.5)), remember="output")),
        ("ssg(prior=lowpass(linear(0.5)))", SSG(prior=LowPass(Linear(0.5)))),
        ("ssg(0.5, schedule=power(exponent=2))", SSG(0.5, schedule=Power(exponent=2.0))),
        ("cfg | ssg", CFG() | SSG()),
        ("cfg + ssg | ssg(2.0)", (CFG() + SSG()) | SSG(2.0)),
        ("cfg + (ssg | ssg(2.0))", CFG() + (SSG() | SSG(2.0))),
        ("(cfg) | (none | ssg)", CFG() | SSG()),
        ("cfg(1)+cfg(2)", CFG(1.0) + CFG(2.0)),
    ],
)
def test_a_text_means(text: str, wanted: Guidance) -> None:
    assert parse(text) == wanted
    assert parse(str(wanted)) == wanted


def test_it_prints_the_strength_and_what_differs() -> None:
    assert str(SSG()) == "ssg(1.0)"
    assert str(CFG(w=3.0)) == "cfg(w=3.0)"
    assert str((CFG() + SSG()) | SSG(0.8, prior=DSE(gain="amplitude"))) == (
        "(cfg(1.5) + ssg(1.0)) | ssg(0.8, prior=dse(gain=amplitude))"
    )
    assert text_of(DSE()) == "dse"
    assert text_of(Ramp(hold_last=True)) == "ramp(hold_last=true)"


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("", 0, "expected a name"),
        ("cgf(1.5)", 0, "unknown guidance 'cgf': did you mean 'cfg'"),
        ("cfg(1.5) |", 10, "got end of text"),
        ("cfg | | ssg", 6, "got '|'"),
        ("cfg(1.5", 7, "expected ',' or '\\)', got end of text"),
        ("cfg(1.5 2)", 8, "expected ',' or '\\)', got '2'"),
        ("cfg) ", 3, "expected the end"),
        ("cfg % 2", 4, "unexpected character '%'"),
        ("cfg(strenght=2)", 4, "no option 'strenght': did you mean 'strength'"),
        ("cfg(1.5, strength=2)", 9, "strength is given twice"),
        ("cfg(w=2, 1.5)", 9, "cannot follow one with a name"),
        ("cfg(1, 2, ramp, 4)", 16, "cfg takes 3 values without a name"),
        ("cfg(start=linear)", 10, "cannot be the word 'linear'"),
        ("ssg(stride=1.5)", 11, "stride is a whole number"),
        ("ssg(remember=1)", 13, "remember is no number"),
        ("ssg(remember=[1])", 13, "remember is no list"),
        ("ssg(schedule=linaer)", 13, "unknown schedule 'linaer': did you mean 'linear'"),
        ("ssg(prior=dse(gain=amplitud))", 10, "did you mean 'amplitude'"),
        ("ssg(prior=3)", 10, "prior is no number"),
        ("ssg(-1)", 0, "strength is a finite number >= 0"),
        ("cfg | ssg(0.5, w=1)", 15, "ssg has no option 'w'"),
        ("1.5", 0, "expected the name of a guidance"),
        ("(" * 5000, 31, "brackets are at most 31 deep"),
        ("cfg([" * 5000, 79, "brackets are at most 31 deep"),
        ("cfg(" + "1" * 5000 + ")", 4, "a number has at most 64 characters"),
        ("cfg(-." + "1" * 63 + ")", 4, "a number has at most 64 characters"),
    ],
)
def test_an_error_points_at_its_character(text: str, at: int, message: str) -> None:
    with pytest.raises(ParseError, match=message) as caught:
        parse(text)
    first, shown, mark = str(caught.value).rsplit("\n", 2)
    assert shown == f"  {text}"
    assert mark == " " * (at + 2) + "^"
    assert first


def test_what_lies_within_the_limits_is_read_far_down_the_stack() -> None:
    deepest = "(" * 30 + "cfg(" + "9" * 64 + ")" + ")" * 30

    def below(calls: int) -> Guidance:
        return below(calls - 1) if calls else parse(deepest)

    assert below(300) == CFG(float("9" * 64))


def test_priors_and_schedules_have_the_same_form() -> None:
    assert parse_prior("bicubic") == Bicubic()
    assert parse_schedule("linear(0.5)") == Linear(0.5)
    with pytest.raises(ParseError, match="unknown prior 'linear'"):
        parse_prior("linear")


numbers = st.floats(0, 10).map(lambda x: round(x, 3))
schedule_objects = st.one_of(st.builds(Linear, numbers), st.builds(Cosine, numbers), st.builds(Constant, numbers))
strengths = st.one_of(numbers, schedule_objects, st.lists(numbers, min_size=1, max_size=4).map(tuple))
prior_objects = st.one_of(
    st.builds(
        DSE,
        transform=st.sampled_from(["dct", "dft"]),
        interpolation=st.sampled_from(["nearest", "bilinear", "bicubic"]),
        high=st.sampled_from(["interpolated", "zero"]),
        gain=st.one_of(st.sampled_from(["literal", "amplitude"]), st.floats(0.1, 2).map(lambda x: round(x, 2))),
    ),
    st.just(Nearest()),
)
leaves = st.one_of(
    st.builds(CFG, strength=strengths),
    st.builds(CFG, w=strengths, schedule=st.none() | schedule_objects),
    st.builds(SSG, strength=strengths, prior=prior_objects, schedule=schedule_objects, stride=st.integers(1, 3)),
    st.just(Identity()),
)
guidances = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] + pair[1]),
    ),
    max_leaves=5,
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(guidances)
def test_text_round_trip(guidance: Guidance) -> None:
    assert parse(str(guidance)) == guidance


def test_every_registered_name_parses_alone() -> None:
    for name in registry:
        assert type(parse(name)) is registry.get(name)

"""The text form of the entropy temperature: in Python, on the command line and in the settings of a picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hguide
from hguide.cli import main
from hguide.cli.settings import read_settings
from hguide.errors import ParseError
from hguide.images import read_png, to_uint8
from hguide.provenance import sampler_facts, sampler_from
from hguide.sampling import Sampler
from hguide.schedules import Linear
from hguide.temperature import EntropyTemperature, parse_temperature

positive = st.floats(1e-6, 1e6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.builds(EntropyTemperature, t0=st.floats(0.0, 1e6), alpha=positive, theta=positive))
def test_the_text_reads_back(temperature: EntropyTemperature) -> None:
    assert parse_temperature(str(temperature)) == temperature


@pytest.mark.parametrize(
    ("text", "temperature"),
    [
        ("entropy", EntropyTemperature()),
        ("entropy()", EntropyTemperature()),
        ("entropy(2, theta=1)", EntropyTemperature(2.0, theta=1.0)),
        ("linear(0.9)", Linear(0.9)),
    ],
)
def test_texts(text: str, temperature: object) -> None:
    assert parse_temperature(text) == temperature
    assert str(EntropyTemperature()) == "entropy"
    assert str(EntropyTemperature(2.0, theta=1.0)) == "entropy(2.0, theta=1.0)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entrpy(2.0)", "unknown temperature 'entrpy': did you mean 'entropy'.*Known: constant, .*entropy.*\n  entrpy"),
        ("entropy(t1=2)", "entropy has no option 't1'(.|\n)*\n {10}\\^"),
        ("entropy(theta=0)", "theta is positive and finite, got 0.0"),
        ("entropy(2", "expected"),
        ("[1, 2]", "expected the name of a schedule"),
    ],
)
def test_errors_point_at_the_text(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse_temperature(text)


@pytest.mark.parametrize("temperature", [0.7, (1.0, 0.5), Linear(0.9), EntropyTemperature(theta=0.8)])
def test_the_facts_make_the_sampler_again(temperature: object) -> None:
    sampler = Sampler(temperature, top_k=5)
    assert sampler_from(sampler_facts(sampler)) == sampler


def test_a_function_of_ones_own_leaves_a_text_at_least() -> None:
    facts = sampler_facts(Sampler(lambda logits: logits[..., :1] * 0 + 1))
    assert isinstance(facts["temperature"], str)


def test_on_the_command_line_and_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--temperature", "entropy(theta=0.8)", "--top-k", "6", "--guidance", "cfg(2)"]
    assert main(["sample", "--model", "toy", "--classes", "1", "--seeds", "3", "--out", str(tmp_path), *arguments]) == 0
    source = tmp_path / "class-1_000003.png"
    assert read_settings(source).sampler["temperature"] == "entropy(theta=0.8)"
    sampler = Sampler(EntropyTemperature(theta=0.8), top_k=6)
    wanted = hguide.generate(hguide.load("toy"), 1, "cfg(2)", sampler, seeds=[3])
    assert (read_png(source)[0] == to_uint8(wanted)[0]).all()
    assert main(["sample", "--from", str(source), "--out", str(tmp_path / "b")]) == 0
    assert "repeated bit for bit" in capsys.readouterr().out

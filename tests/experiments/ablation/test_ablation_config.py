"""Configurations: every mistake at once, axes to cells, labels, the baseline."""

from __future__ import annotations

import pytest

from hguide.errors import ConfigError
from hguide.experiments.ablation.cells import baseline_of, read_cells, varied_axes
from hguide.experiments.ablation.config import read_config
from hguide.experiments.ablation.configs import config_file
from hguide.guidance import parse
from hguide.temperature import EntropyTemperature

MISTAKES = """\
modle: landuse-var
guidance:
  - cfg(1.5) | ssg({strenth}, prior={prior})
  - cgf(1.5)
prior: [nearest, dse(hihg=zero)]
schedule: linear
seeds: 0-x
temperature: [1.0, hot]
measures: [kd, fdd, kd_squeezenet]
sampler: {topk: 5}
block: 0
block: 4
labels: 3
cells:
  - label: a
    guidnce: cfg
"""
FOUND = [
    r"line 1: unknown key 'modle': did you mean 'model'",
    r"line 3: unknown placeholder \{strenth\}: did you mean 'strength'",
    r"line 4: guidance: unknown guidance 'cgf': did you mean 'cfg'",
    r"line 5: prior: dse has no option 'hihg': did you mean 'high'",
    r"line 6: schedule is given, but no guidance has the placeholder \{schedule\}",
    r"line 7: seeds: '0-x' is neither",
    r"line 8: temperature: unknown temperature 'hot'",
    r"line 9: unknown measure 'fdd': did you mean 'fd'",
    r"line 9: kd_squeezenet needs repeat_features",
    r"line 10: unknown key 'topk' of sampler: did you mean 'top_k'",
    r"line 11: block is a whole number from 1, got 0",
    r"line 12: 'block' is given twice",
    r"line 13: labels is a list",
    r"line 16: unknown key 'guidnce' of a cell: did you mean 'guidance'",
]


def read(path):
    config = read_config(path)
    cells = read_cells(config)
    baseline = baseline_of(config, cells)
    config.problems.raise_any(config.where)
    return config, cells, baseline


def labels(path) -> list[str]:
    return [cell.label for cell in read(path)[1]]


@pytest.fixture(scope="module")
def message(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("bad") / "bad.yaml"
    path.write_text(MISTAKES)
    with pytest.raises(ConfigError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize("expected", FOUND)
def test_every_mistake_is_listed_with_its_line(message, expected):
    import re

    assert re.search(expected, message), message


def test_mistakes_stand_in_the_order_of_lines(message):
    import re

    lines = [int(number) for number in re.findall(r"^  line (\d+):", message, re.MULTILINE)]
    assert lines == sorted(lines)
    assert f"has {len(lines)} mistakes" in message


def test_a_mark_stands_under_the_character(message):
    shown = message.splitlines()
    place = next(i for i, line in enumerate(shown) if line.endswith("dse(hihg=zero)"))
    assert shown[place + 1].index("^") == shown[place].index("hihg")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", "line 1: "),
        ("- 1", "is a mapping"),
        ("a: !!python/object:os.system {}", "line 1: plain lists and mappings only"),
        ("a: !!python/name:os.system", "line 1: could not determine a constructor"),
        ("guidance: none", "seeds is missing"),
        ("seeds: 0-3", "no cells"),
        ("seeds: 0-3\nguidance: none\nclasses: 0-3\nprompts: [a]", "line 4: give classes or prompts"),
        ("seeds: 0-3\nguidance: cfg\nbaseline: 4", "line 3: baseline is a label or 0 to 0, got 4"),
        ("seeds: 0-3\nguidance: cfg\nbaseline: cgf", "line 3: the baseline 'cgf' is the label of no cell"),
        ("seeds: 0-3\nguidance: [none, cfg]\nlabels: [a, a]", "two cells have the label 'a'"),
        ("seeds: 0-3\nguidance: [none, cfg]\nlabels: [a]", "1 labels are given for 2 cells"),
        ("seeds: 0-3\nguidance: [none, cfg]\nlabels: {cgf: x}", "line 3: labels names no cell 'cgf'"),
        ("seeds: 0-3\nguidance: 'cfg({strength})'", "but no strength is given"),
        ("seeds: 0-3\nguidance: cfg\ntemperature: -1", "line 3: temperature is positive"),
        ("seeds: 0-3\nguidance: cfg\ntemperature: entropy(t=1)", "entropy has no option 't'"),
        ("seeds: 0-3\nguidance: cfg\nsampler: {top_p: 3}", "line 3: sampler: .*top_p is from 0 to 1"),
        ("seeds: 0-3\nguidance: cfg\nstrength: .nan", "strength is a number"),
        ("seeds: 0-3\ncells: [{label: a, prior: dse, guidance: cfg}]", "has no placeholder {prior}"),
    ],
)
def test_refused(text, expected, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        read(path)


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ("[-1, 0, 1, 2]", "line 1: seeds: a seed is a whole number from 0 to 9223372036854775807 .*got -1"),
        ("[99999999999999999999, 0]", "got 99999999999999999999"),
        ("[1.5]", r"line 1: seeds is a range, a file or a list of whole numbers, got \[1\.5\]"),
        ("1.5", "got 1.5"),
        ("2026-01-01", "got datetime.date"),
        ("true", "got True"),
        ("{a: 1}", "got {'a': 1}"),
        ("[]", r"got \[\]"),
        ("0-99999999999", "has 100,000,000,000 numbers; one range has at most 10,000,000"),
    ],
)
def test_seeds_that_cannot_run_are_refused(seeds, expected, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(f"seeds: {seeds}\nguidance: none\n")
    with pytest.raises(ConfigError, match=expected):
        read(path)


@pytest.mark.parametrize("guidance", ["[]", "[3]", "3", "{a: b}"])
def test_a_guidance_that_was_refused_is_not_read(guidance, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(f"seeds: 0-3\nguidance: {guidance}\ncells: [{{temperature: 0.5}}]\n")
    with pytest.raises(ConfigError, match="has a mistake:\n  line 2: guidance is ") as caught:
        read(path)
    assert "None" not in str(caught.value)


@pytest.mark.parametrize("number", ["1" + "0" * 400, ".inf", "-.inf", ".nan", "true"])
def test_numbers_that_no_float_holds(number, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(f"seeds: 0-3\nguidance: 'cfg({{strength}})'\nstrength: {number}\ntemperature: {number}\n")
    with pytest.raises(ConfigError, match="has 2 mistakes:\n  line 3: strength is .*\n  line 4: temperature is "):
        read(path)


def test_mistakes_of_a_list_stand_at_their_own_entries(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("seeds: 0-3\nguidance: ['ssg(1, prior={prior})']\nprior:\n  - 7\n  - dse\n  - dze\n")
    with pytest.raises(ConfigError, match="line 4: prior is a text.*\n  line 6: prior: unknown prior 'dze'"):
        read(path)


@pytest.mark.parametrize(
    ("baseline", "told"),
    [
        ("CFG alone", False),  # a label of a cell that cannot be read
        ("cgf(3.0)", False),
        ("cfg(3.0)", False),  # what it may be once it is corrected
        ("none", False),
        ("CFG alnoe", True),
        ("ssg(0.5)", True),
        ("2", True),
        ("1", False),
    ],
)
def test_a_baseline_beside_cells_that_cannot_be_read(baseline, told, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        f"seeds: 0-3\nguidance: none\nbaseline: {baseline}\ncells: [{{label: CFG alone, guidance: cgf(3.0)}}]\n"
    )
    with pytest.raises(ConfigError, match="line 4: guidance: unknown guidance 'cgf'") as caught:
        read(path)
    assert ("line 3: " in str(caught.value)) == told


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="did you mean 'ssg_table5'"):
        config_file("ssg_tabel5")


def test_the_product_of_the_axes(written):
    path = written(
        guidance=["none", "cfg(2) | ssg({strength}, prior={prior})"],
        prior=["nearest", "dse"],
        strength=[0.5, 1],
        temperature=[1.0, 0.9],
    )
    _, cells, baseline = read(path)
    assert [(str(cell.guidance), cell.axes["temperature"]) for cell in cells] == [
        (text, temperature)
        for text in (
            "none",
            "cfg(2.0) | ssg(0.5, prior=nearest)",
            "cfg(2.0) | ssg(1.0, prior=nearest)",
            "cfg(2.0) | ssg(0.5)",
            "cfg(2.0) | ssg(1.0)",
        )
        for temperature in (1.0, 0.9)
    ]
    assert cells[0].axes["prior"] is None
    assert cells[2].axes["prior"] == "nearest"
    assert varied_axes(cells) == ("guidance", "prior", "strength", "temperature")
    assert cells[1].label == "none, temperature 0.9"
    assert baseline is cells[0]


def test_cells_of_the_same_meaning_are_one(written):
    assert labels(written(guidance=["cfg", "cfg(1.5)", "none"], temperature=[1, 1.0])) == ["cfg(1.5)", "none"]
    listed = [{"label": "mine", "guidance": "cfg(1.5)"}, {"label": "other", "guidance": "cfg(2)"}]
    assert labels(written(guidance="cfg", cells=listed)) == ["mine", "other"]


def test_listed_cells_take_the_axes_that_have_one_value(written):
    listed = [
        {"label": "a", "guidance": "none", "temperature": 0.5},
        {"label": "b", "guidance": "cfg", "sampler": {"top_k": 3}},
    ]
    _, cells, baseline = read(written(guidance=None, temperature=0.8, cells=listed, baseline="b"))
    assert [cell.sampler.temperature for cell in cells] == [0.5, 0.8]
    assert [cell.sampler.top_k for cell in cells] == [0, 3]
    assert [cell.axes["sampler"] for cell in cells] == ["all tokens", "top_k=3"]
    assert baseline is cells[1]


def test_labels(written):
    assert labels(written(labels=["one", "two"])) == ["one", "two"]
    assert labels(written(labels={"cfg(2.0) | ssg(0.5)": "ours"})) == ["none", "ours"]


def test_temperatures(written):
    values = [0.9, [1.0, 0.9, 0.8, 0.7, 0.6], "linear(0.9)", "entropy", "entropy(theta=0.8)"]
    _, cells, _ = read(written(guidance="none", temperature=values))
    found = [cell.sampler.temperature for cell in cells]
    assert found[:2] == [0.9, (1.0, 0.9, 0.8, 0.7, 0.6)]
    assert found[3:] == [EntropyTemperature(), EntropyTemperature(theta=0.8)]
    assert cells[4].sampler_facts["temperature"] == "entropy(theta=0.8)"


def test_the_shipped_table_has_the_six_rows_of_the_paper():
    config, cells, baseline = read(config_file("ssg_table5"))
    assert len(config.seeds) == 512
    assert [cell.guidance for cell in cells] == [
        parse(text)
        for text in (
            "cfg(3.0)",
            "cfg(3.0) | ssg(1.0, prior=nearest)",
            "cfg(3.0) | ssg(1.0, prior=bilinear)",
            "cfg(3.0) | ssg(1.0, prior=dse(high=zero))",
            "cfg(3.0) | ssg(1.0, prior=dse, schedule=constant)",
            "cfg(3.0) | ssg(1.0, prior=dse, schedule=linear)",
        )
    ]
    assert baseline is cells[0]


def test_the_configuration_of_the_docs(tmp_path):
    import re
    from pathlib import Path

    page = Path(__file__).parents[3] / "docs" / "ablation.md"
    path = tmp_path / "docs.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)[1])
    _, cells, baseline = read(path)
    assert len(cells) == 10
    assert baseline is cells[-1]
    assert str(cells[-2].guidance) == "cfg(3.0) | ssg(1.0)"

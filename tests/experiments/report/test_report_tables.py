"""Tables: marks, escapes, alignment."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import report_examples as examples
from hypothesis import given
from hypothesis import strategies as st

from hguide.experiments.ablation.results import Comparison
from hguide.experiments.report.differences_table import differences_table, verdict
from hguide.experiments.report.latex import escape_latex, latex_table
from hguide.experiments.report.markdown import escape_markdown, markdown_table
from hguide.experiments.report.measures_table import measures_table
from hguide.experiments.report.numbers import interval_text, number_text, ranks
from hguide.experiments.report.summary import summary
from hguide.experiments.report.table import letters


@pytest.mark.parametrize(
    ("texts", "higher", "marks"),
    [
        (["1.0", "3.0", "2.0"], True, ["", "best", "second"]),
        (["1.0", "3.0", "2.0"], False, ["best", "", "second"]),
        (["-0.1", "0.0", "0.2"], False, ["best", "second", ""]),
        # Printed alike, marked alike; the second is the next number.
        (["2.0", "2.0", "1.0", "0.5"], True, ["best", "best", "second", ""]),
        (["3.0", "2.0", "2.0", "1.0"], True, ["best", "second", "second", ""]),
        ([None, "2.0", None, "1.0"], False, ["", "second", "", "best"]),
        (["10.0", "9.0"], True, ["best", "second"]),
        # Nothing to tell apart, or no direction.
        (["1.0", "1.0"], True, ["", ""]),
        (["1.0"], True, [""]),
        ([None, None], True, ["", ""]),
        (["1.0", "2.0"], None, ["", ""]),
        ([], True, []),
    ],
)
def test_ranks(texts, higher, marks):
    assert ranks(texts, higher) == marks


@given(st.lists(st.integers(-50, 50), min_size=2), st.booleans())
def test_the_best_is_never_beaten(values, higher):
    marks = ranks([str(each) for each in values], higher)
    extreme = max(values) if higher else min(values)
    expected = [each == extreme and len(set(values)) > 1 for each in values]
    assert [mark == "best" for mark in marks] == expected


def test_numbers():
    assert number_text(-0.00004, 3) == "0.000"
    assert number_text(0.0, 2, sign=True) == "0.00"
    assert number_text(-1.005, 1, sign=True) == "-1.0"
    assert interval_text(-0.5, 12, 1, sign=True) == "[-0.5, +12.0]"


def test_letters_go_on_after_z():
    names = [str(place) for place in range(26 * 27 + 1)]
    found = list(letters(names).values())
    assert (found[0], found[25], found[26], found[51], found[52], found[-1]) == ("A", "Z", "AA", "AZ", "BA", "AAA")
    assert len(set(found)) == len(names)


def column(table, name: str, group: str) -> list:
    place = next(i for i, each in enumerate(table.columns) if (each.name, each.group) == (name, group))
    return [row.entries[place] for row in table.rows]


def test_the_table_of_measures():
    results = examples.eight()
    table = measures_table(results)
    assert [row.letter for row in table.rows] == list("ABCDEFGH")
    assert [row.remark for row in table.rows] == ["baseline", "", "", "", "", "partial", "failed", "not run"]
    assert [row.dagger for row in table.rows] == [False] * 5 + [True] * 3
    kd = column(table, "KD", examples.NETWORK)
    assert [each.text for each in kd] == ["0.050", "0.052", "0.048", "0.045", "0.045", "0.047", "–", "–"]
    # D and E are printed alike; F is partial and takes no part, though it is nearer than C.
    assert [each.mark for each in kd] == ["", "", "second", "best", "best", "", "", ""]
    assert kd[0].interval == "[0.047, 0.054]"
    assert {each.mark for each in column(table, "high band", "pixels")} == {""}
    assert [name for name, _ in table.groups] == [examples.NETWORK, "pixels", examples.REPEAT, "cost"]
    assert sum(width for _, width in table.groups) == len(table.columns)
    assert table.floor is not None
    assert table.floor.entries[0].text == "0.002"
    # No floor of this measure is known.
    assert table.floor.entries[7].number is None
    assert table.troubles[0] == "† F: partial, 320 of 512 images; takes no part in best and second."
    assert table.troubles[1].startswith("† G: failed after 96 of 512 images: RuntimeError: probabilities contain NaN")
    assert [each.text for each in column(table, "MB", "cost")][-2:] == ["–", "–"]


def test_memory_is_left_out_where_no_device_tells_it():
    results = examples.eight()
    cells = tuple(replace(each, peak_memory_mb=None) for each in results.cells)
    assert [each.name for each in measures_table(replace(results, cells=cells)).columns][-1] == "ms/image"


def test_one_cell_has_no_marks_and_no_differences():
    results = examples.results_of((examples.cell("none", 1.0),))
    assert {entry.mark for row in measures_table(results).rows for entry in row.entries} == {""}
    assert differences_table(results) is None
    assert summary(results)[-1] == "Nothing was compared with a baseline."


@pytest.mark.parametrize(
    ("estimate", "apart", "higher", "expected"),
    [
        (-1.0, True, False, "better"),
        (1.0, True, False, "worse"),
        (1.0, True, True, "better"),
        (-1.0, True, True, "worse"),
        (-1.0, True, None, "differs"),
        (1.0, False, True, ""),
    ],
)
def test_verdicts(estimate, apart, higher, expected):
    measure = replace(examples.MEASURES[0], higher_is_better=higher)
    assert verdict(Comparison("a", "b", "kd", estimate, estimate - 2, estimate + 2, apart), measure) == expected


def test_the_table_of_differences():
    table = differences_table(examples.eight())
    assert table is not None
    assert [row.letter for row in table.rows] == list("BCDE")
    kd = column(table, "KD", examples.NETWORK)
    assert [each.mark for each in kd] == ["", "", "better", "better"]
    assert kd[2].text == "-0.005"
    assert [each.mark for each in column(table, "recall", examples.NETWORK)] == ["", "", "worse", "worse"]
    assert [each.mark for each in column(table, "high band", "pixels")] == ["", "", "differs", "differs"]
    assert table.notes[1].startswith("26 of 52 intervals exclude zero; ")
    assert "about 2.6" in table.notes[1]


def test_the_summary_names_the_baseline_and_what_differs():
    text = " ".join(summary(examples.eight()))
    assert "8 cells of 512 images each (seeds 0-511, 21 classes); 5 finished, 1 partial, 1 failed, 1 not run." in text
    assert "The baseline is A, cfg(3.0)" in text
    assert "In KD (lower is better): D, E better than the baseline; B, C not told apart from it." in text
    assert "In accuracy (higher is better): D, E better" in text
    assert "agrees in sign (2 of 2 cells)" in text


def test_the_summary_says_where_the_independent_network_disagrees():
    results = examples.eight()
    turned = tuple(
        replace(each, estimate=-each.estimate)
        if (each.cell, each.measure) == (results.cells[3].hash, "kd_squeezenet")
        else each
        for each in results.comparisons
    )
    assert "does NOT agree in sign for D." in " ".join(summary(replace(results, comparisons=turned)))
    none = tuple(replace(each, excludes_zero=False) for each in results.comparisons)
    assert "No difference in KD excludes zero" in " ".join(summary(replace(results, comparisons=none)))


def test_markdown_is_aligned_and_its_bars_are_escaped():
    table = measures_table(examples.eight())
    text = markdown_table(table)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 8 + 1
    bars = [[match.start() for match in re.finditer(r"(?<!\\)\|", line)] for line in lines]
    assert all(each == bars[0] for each in bars)
    assert len(bars[0]) == len(table.columns) + 2
    assert r"**D** cfg(3.0) \| ssg(0.5, prior=dse(gain=amplitude), schedule=linear)" in text
    assert "**0.045** [0.042, 0.048]" in text
    assert "<ins>0.048</ins>" in text
    assert "**G**† none (failed)" in text
    # Two measures have this name.
    assert "KD (squeezenet) ↓" in text
    assert r"\<logits & 100 %\>" in text


def test_markdown_of_differences_has_signs():
    table = differences_table(examples.eight())
    assert table is not None
    text = markdown_table(table)
    assert "-0.005 [-0.008, -0.003] ▲" in text
    assert "-0.054 [-0.079, -0.029] ▼" in text
    assert "-0.10 [-0.14, -0.05] ◆" in text


def test_markdown_escapes():
    assert escape_markdown("a_b*c `d` [e] <f>\n|#g") == r"a\_b\*c \`d\` \[e\] \<f\> \|\#g"


def test_latex_escapes():
    assert escape_latex("50% & $5 #1 a_b {c} ~^\\ |") == (
        r"50\% \& \$5 \#1 a\_b \{c\} \textasciitilde{}\textasciicircum{}\textbackslash{} \textbar{}"
    )
    assert escape_latex("β ≤ −1") == r"$\beta$ $\le$ $-$1"


@pytest.mark.parametrize("make", [measures_table, differences_table])
def test_latex_rows_have_one_entry_per_column(make):
    table = make(examples.eight())
    text = latex_table(table)
    total = 0
    for body in re.findall(r"\\toprule(.*?)\\bottomrule", text, re.DOTALL):
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        width = sum(int(each) for each in re.findall(r"\\multicolumn\{(\d+)\}", lines[0]))
        assert width <= 9
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines[1:]} == {width}
        total += width
    assert total == len(table.columns)
    # After a line break, LaTeX takes a bracket for a length.
    assert not re.search(r"\\\\\s*\[", text)
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert not re.search(r"(?<!\\)[%#_]", text.split("\n", 1)[1].replace("tab:", ""))


def test_latex_marks():
    text = latex_table(measures_table(examples.eight()))
    assert r"\textbf{0.045}" in text
    assert r"\underline{0.048}" in text
    assert r"{\tiny [0.047, 0.054]}" in text
    assert r"\cmidrule(lr){2-8} \cmidrule(lr){9-10}" in text
    assert r"\cmidrule(lr){2-5} \cmidrule(lr){6-7}" in text
    assert r"KD $\downarrow$" in text
    assert r"G\textdagger{}\enspace none (failed) & -- " in text
    assert "% \\usepackage{booktabs, graphicx}\n" in text
    differences = differences_table(examples.eight())
    assert differences is not None
    text = latex_table(differences)
    assert r"$\blacktriangle$ $-$0.005" in text
    assert r"{\tiny [$-$0.008, $-$0.003]}" in text
    assert "amssymb" in text

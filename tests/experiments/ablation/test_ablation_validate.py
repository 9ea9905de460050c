"""`hguide validate`: all mistakes in one list, whatever kind they are of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hguide.cli import main
from hguide.errors import ConfigError
from hguide.experiments.ablation import plan
from hguide.experiments.ablation.setup import prepare

MISTAKES = """\
modle: x
model: [landuse-vr, landuse-var]
guidance:
  - cgf(1.5)
  - cfg(1.5) | SSG({strength}, prior={prior})
  - cfg(1.5) | ssg({strength}, prior={prior}, schedule={schedule})
  - cfg(1.5) | ssg({strenth}, prir=dse)
  - 3
  - cfg(2.0)
prior: [7, nearest, dse(hihg=zero), nearst]
schedule: [linear, liner]
strength: [0.5, strong, -1]
sampler: [{top_k: 5}, {top_p: 3}, {topp: 1}]
temperature: [1.0, 0, hot]
seeds: [-1, 0, 1, 2]
classes:
  - harbor
  - habor
  - 99
  - Forrest
baseline: CFG alnoe
measures: [kdd, kd]
features: none.safetensors
reference: none.npz
repeat_features: nothing
cells:
  - label: CFG alone
    guidance: cfgg
    model: landuse-var
    sampler: {}
    temperature: 1.0
  - label: other
    guidance: cfg({strength})
    model: landuse-xx
    prior: dse
    strength: weak
    sampler: {top_k: -1}
    temperature: 1.0
"""
FOUND = [
    "line 1: unknown key 'modle'",
    "line 2: model 'landuse-vr': no such file",
    "line 4: guidance: unknown guidance 'cgf': did you mean 'cfg'",
    "line 5: guidance: unknown guidance 'SSG': did you mean 'ssg'",
    "line 7: unknown placeholder {strenth}: did you mean 'strength'",
    "line 7: guidance: ssg has no option 'prir': did you mean 'prior'",
    "line 8: guidance is a text, got 3",
    "line 10: prior is a text, got 7",
    "line 10: prior: dse has no option 'hihg': did you mean 'high'",
    "line 10: prior: unknown prior 'nearst': did you mean 'nearest'",
    "line 11: schedule: unknown schedule 'liner': did you mean 'linear'",
    "line 12: strength: unknown schedule 'strong'",
    "line 12: strength: SSG: strength is a finite number >= 0, got -1.0",
    "line 13: unknown key 'topp' of sampler: did you mean 'top_p'",
    "line 13: sampler: top_p is from 0 to 1, got 3",
    "line 14: temperature is positive and finite, got 0",
    "line 14: temperature: unknown temperature 'hot'",
    "line 15: seeds: a seed is a whole number from 0 to 9223372036854775807 (2**63 - 1), got -1",
    "line 18: landuse-var: unknown class 'habor': did you mean 'harbor'",
    "line 19: landuse-var: a class is an integer from 0 to 20, got 99",
    "line 20: landuse-var: unknown class 'Forrest': did you mean 'forest'",
    "line 21: the baseline 'CFG alnoe' is the label of no cell: did you mean 'CFG alone'",
    "line 22: unknown measure 'kdd': did you mean 'kd'",
    "line 23: cannot read feature weights from none.safetensors",
    "line 24: none.npz: expected an .npz with pictures",
    "line 25: no SqueezeNet 1.1 weights at nothing",
    "line 28: guidance: unknown guidance 'cfgg': did you mean 'cfg'",
    "line 34: model 'landuse-xx': no such file",
    "line 35: the cell's guidance has no placeholder {prior}",
    "line 36: strength: unknown schedule 'weak'",
    "line 37: sampler: top_k is 0 (all) or a number",
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("bad") / "bad.yaml"
    path.write_text(MISTAKES)
    with pytest.raises(ConfigError) as caught:
        prepare(path)
    return str(caught.value).splitlines()


def test_every_mistake_is_told_at_once_and_once(told: list[str]) -> None:
    lines = [line.strip() for line in told if re.match(r"  line \d+: ", line)]
    assert told[0].endswith(f"bad.yaml has {len(FOUND)} mistakes:")
    for expected, line in zip(FOUND, lines, strict=True):
        assert line.startswith(expected)


@pytest.mark.parametrize("entry", [entry for entry in FOUND if re.match("line (2|5|12|15|18|21|24|34):", entry)])
def test_a_mistake_beside_others_is_the_mistake_alone(entry: str, told: list[str], tmp_path: Path) -> None:
    """What is told of an entry does not depend on what else is wrong: all but its own entry is put right."""
    right = {
        "model": "landuse-var",
        "guidance": "cfg(1.5) | ssg({strength})",
        "strength": "0.5",
        "seeds": "0-20",
        "classes": "[harbor]",
        "baseline": "0",
        "reference": "bundled",
    }
    key, value = {
        "2": ("model", "landuse-vr"),
        "5": ("guidance", "cfg(1.5) | SSG({strength})"),
        "12": ("strength", "strong" if "strong" in entry else "-1"),
        "15": ("seeds", "[-1, 0, 1, 2]"),
        "18": ("classes", "[habor]"),
        "21": ("baseline", "CFG alnoe"),
        "24": ("reference", "none.npz"),
        "34": ("model", "landuse-xx"),
    }[entry.split()[1].rstrip(":")]
    path = tmp_path / "one.yaml"
    path.write_text("".join(f"{name}: {text}\n" for name, text in (right | {key: value}).items()))
    with pytest.raises(ConfigError, match="has a mistake:") as caught:
        prepare(path)
    assert entry.split(": ", 1)[1].split(": did")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": [0], "prompts": ["a"]}, "give classes or prompts, not both"),
        ({"classes": 1.5}, "classes is names, numbers or a range, got 1.5"),
        ({"classes": "4,9,1"}, "toy: a class is an integer from 0 to 3, got 4, 9"),
        ({"classes": [1, 1]}, "toy: classes repeat"),
        ({"prompts": "promts.txt"}, "toy: prompts: 'promts.txt' reads like the name of a file, and there is no such"),
        ({"model": 3}, "model is a text, got 3"),
        ({"seeds": [1.5], "measures": ["score"]}, "seeds is a range, a file or a list of whole numbers"),
        ({"guidance": []}, "guidance is an empty list"),
    ],
)
def test_one_mistake_is_told_as_one(changes, message, written) -> None:
    with pytest.raises(ConfigError, match=f"has a mistake:\n  (line \\d+: )?{message}"):
        prepare(written(**changes))


def test_lenders_are_told_one_by_one(written, capsys) -> None:
    lenders = {"weak": "none.safetensors", "other": "nil.safetensors", "idle": "toy"}
    path = written(guidance=["autoguidance(1.0)", "autoguidance(1.0, model=other)"], models=lenders, seeds="0-1")
    assert main(["validate", str(path)]) == 2
    shown = capsys.readouterr().err
    for part in ("lender 'weak': none", "lender 'other': nil", "measures need at least 4 images, got 2"):
        assert part in shown


def test_an_idle_lender_is_told_beside_other_mistakes(written) -> None:
    with pytest.raises(ConfigError, match="no guidance asks for the lender 'weak'") as caught:
        prepare(written(models={"weak": "toy"}, colour="red"))
    assert "unknown key 'colour'" in str(caught.value)
    with pytest.raises(ConfigError, match="unknown guidance 'autoguidence'") as caught:
        prepare(written(models={"weak": "toy"}, guidance="autoguidence(1.0)"))
    assert "no guidance asks" not in str(caught.value)


def test_nothing_is_fetched_for_a_configuration_that_cannot_run(written, monkeypatch) -> None:
    tried = []

    def load(models: object, name: str, options: object) -> None:
        tried.append(name)
        raise ConfigError("stopped here")

    monkeypatch.setattr(plan.Models, "_load", load)
    for far in ("var-d16", "someone/model"):
        with pytest.raises(ConfigError, match="has a mistake:\n.*unknown key 'colour'"):
            prepare(written(model=far, colour="red"))
        assert tried == []
        with pytest.raises(ConfigError, match=f"model '{far}': stopped here"):
            prepare(written(model=far))
        assert tried.pop() == far
    with pytest.raises(ConfigError, match="has 2 mistakes:\n.*model 'folder/var.pth': stopped"):
        prepare(written(model="folder/var.pth", colour="red"))


def test_each_model_is_loaded_once(written, monkeypatch) -> None:
    """The guidances are the outer loop of the table: its rows take turns with their models."""
    loaded = []
    load = plan.Models._load
    monkeypatch.setattr(
        plan.Models, "_load", lambda self, name, options: loaded.append(name) or load(self, name, options)
    )
    setup = prepare(written(model=["toy", "landuse-var"], classes="0-3", reference=None, seeds="0-3"))
    assert [each.cell.model for each in setup.cells] == ["toy", "landuse-var"] * 2
    assert loaded == ["toy", "landuse-var"]


def test_pictures_are_looked_at_once_all_is_right(written, monkeypatch) -> None:
    from hguide.experiments.extractors import LanduseExtractor

    looked = []
    arrays = LanduseExtractor.arrays
    monkeypatch.setattr(LanduseExtractor, "arrays", lambda self, images: looked.append(1) or arrays(self, images))
    with pytest.raises(ConfigError, match="33 crops are asked for, the reference has 32"):
        prepare(written(seeds="0-32"))
    assert looked == []
    assert set(prepare(written()).reference.train.arrays) == {"features", "spatial", "power"}
    assert looked == [1]

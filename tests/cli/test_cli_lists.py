"""Seeds, classes and prompts as they are written."""

from __future__ import annotations

import pytest

from hguide.backends.toy import ToyGenerator
from hguide.cli import lists
from hguide.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("0-3", [0, 1, 2, 3]),
        ("0-2,12", [0, 1, 2, 12]),
        (" 5 , 3-4 ", [5, 3, 4]),
        (7, [7]),
        ([3, 1], [3, 1]),
        (["0-1", 9], [0, 1, 9]),
    ],
)
def test_seeds(given, wanted):
    assert lists.seeds(given) == wanted


def test_seeds_from_a_file(tmp_path):
    (tmp_path / "seeds.txt").write_text("# mine\n0-2\n\n9, 11\n")
    assert lists.seeds(str(tmp_path / "seeds.txt")) == [0, 1, 2, 9, 11]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "seeds is empty"),
        (",", "seeds is empty"),
        ([], "seeds is empty"),
        ("1,2,1", "seeds repeat.*: 1"),
        ("0-3,2", "seeds repeat.*: 2"),
        ("3-1", "the range 3-1 is empty"),
        ("-1", "'-1' is neither"),
        ("many", "'many' is neither"),
    ],
)
def test_bad_seeds(given, message):
    with pytest.raises(ConfigError, match=message):
        lists.seeds(given)


def test_classes():
    toy = ToyGenerator()
    assert lists.conditions(toy, None) == [0, 1, 2, 3]
    assert lists.conditions(toy, "2-3,0") == [2, 3, 0]
    with pytest.raises(ConfigError, match="from 0 to 3, got 4"):
        lists.conditions(toy, "0-4")
    with pytest.raises(ConfigError, match="classes repeat.*1"):
        lists.conditions(toy, "1,1")
    with pytest.raises(ConfigError, match="not both"):
        lists.conditions(toy, "1", "a prompt")


def test_prompts_are_whole_lines(tmp_path):
    class Texts(ToyGenerator):
        def conditions(self, condition, samples):
            return list(condition)

    assert lists.conditions(Texts(), None, "a beach, at 0-3") == ["a beach, at 0-3"]
    (tmp_path / "prompts.txt").write_text("a river\na beach, at noon\n")
    assert lists.conditions(Texts(), None, str(tmp_path / "prompts.txt")) == ["a river", "a beach, at noon"]


def test_guidance_texts():
    assert lists.guidance_texts("none; cfg(1.5) | ssg") == ["none", "cfg(1.5) | ssg"]
    assert lists.guidance_texts(["cfg"]) == ["cfg"]
    with pytest.raises(ConfigError, match="guidances is empty"):
        lists.guidance_texts(" ; ")
    with pytest.raises(ConfigError, match="guidances repeat"):
        lists.guidance_texts("cfg; cfg")


def test_numbers_of_classes_given_as_prompts():
    toy = ToyGenerator()
    assert lists.class_numbers(toy, [2, 0]) == [2, 0]
    toy.class_names = ("farm", "harbor", "lake")
    assert lists.class_numbers(toy, ["lake", 0]) == [2, 0]
    assert lists.class_numbers(toy, ["lake", "a lake"]) is None
    with pytest.raises(ConfigError, match="unknown class 'hrabor': did you mean 'harbor'"):
        lists.conditions(toy, ["hrabor"])

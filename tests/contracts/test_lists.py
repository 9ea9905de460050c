"""Seeds, classes and prompts as they are written."""

from __future__ import annotations

import re

import pytest

from hguide import lists
from hguide.backends.toy import ToyGenerator
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
        ("3-1", "the range 3-1 is empty; write it from the smaller number, as 1-3"),
        ("0-99999999999", "the range 0-99999999999 has 100,000,000,000 numbers; one range has at most 10,000,000"),
        ([-1, 0, 1], r"from 0 to 9223372036854775807 \(2\*\*63 - 1\), got -1\."),
        ([0, 99999999999999999999], r"\(2\*\*63 - 1\), got 99999999999999999999\."),
        ("9223372036854775807-9223372036854775808", "got 9223372036854775808"),
        ("9" * 5000, "is neither a whole number"),
        ("-1", "'-1' is neither"),
        ("many", "'many' is neither"),
    ],
)
def test_bad_seeds(given, message):
    with pytest.raises(ConfigError, match=message):
        lists.seeds(given)


def test_the_largest_seed():
    assert lists.seeds("0, 9223372036854775807") == [0, 2**63 - 1]


def test_a_file_does_not_name_files(tmp_path):
    (tmp_path / "seeds.txt").write_text(str(tmp_path / "seeds.txt"))
    with pytest.raises(ConfigError, match="nor a file"):
        lists.seeds(str(tmp_path / "seeds.txt"))


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


class Texts(ToyGenerator):
    """Takes any prompt."""

    class_count = None

    def conditions(self, condition, samples):
        return list(condition)


def test_every_unknown_class_is_named():
    toy = ToyGenerator()
    with pytest.raises(ConfigError, match="from 0 to 3, got 4, 9, 12, 13, 14, 15, 16, 17 and 2 more"):
        lists.conditions(toy, "4,1,9,12-19")
    toy.class_names = ("farm", "harbor", "lake", "river")
    with pytest.raises(
        ConfigError,
        match=r"^toy: unknown class 'hrabor': did you mean 'harbor'\?; unknown class 'q-q-q'; unknown class 'LAKE': "
        r"did you mean 'lake'\? Known: farm, harbor, lake, river\. a class is an integer from 0 to 3, got 4\.$",
    ):
        lists.conditions(toy, ["hrabor", "q-q-q", "LAKE", "farm", 4])


@pytest.mark.parametrize("text", ["promts.txt", "A.TXT", "lists/promts", "../a.csv", "~/none", "my prompts.json"])
def test_a_file_of_prompts_that_is_not_there_is_no_prompt(text):
    for given in (text, ["a river", text]):
        with pytest.raises(ConfigError, match=f"prompts: {re.escape(repr(text))} reads like the name of a file, and"):
            lists.conditions(Texts(), None, given)
    with pytest.raises(ConfigError, match="classes: .* there is no such file"):
        lists.conditions(Texts(), text)


@pytest.mark.parametrize(
    "text", ["a cat and/or a dog", "~ 3 trees", "~nobody", "No. 3", "x" * 300, "a\0b", "Mt. Fuji."]
)
def test_what_is_a_prompt(text):
    assert lists.conditions(Texts(), None, text) == [text]


def test_prompts_are_whole_lines(tmp_path):
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

"""Seeds, classes and prompts as a command line or a YAML file has them: lists, ranges and files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hguide.errors import ConfigError, near_matches
from hguide.generator import ScaleGenerator

__all__ = ["Listed", "class_name", "class_numbers", "conditions", "guidance_texts", "seeds"]

Listed = int | str | Sequence[int | str]

LARGEST_SEED = 2**63 - 1
LONGEST_RANGE = 10_000_000
TEXT_FILES = (".csv", ".json", ".jsonl", ".md", ".tsv", ".txt", ".yaml", ".yml")

# Python refuses to read whole numbers of more than 4,300 digits; none of so many is meant here.
_NUMBER = re.compile(r"\d{1,40}")
_RANGE = re.compile(r"(\d{1,40})\s*-\s*(\d{1,40})")


def seeds(given: Listed) -> list[int]:
    """Distinct seeds.

    Args:
        given: "0-15", "0-7,12", a number, a list of them, or a file with such entries.

    Raises:
        ConfigError: none, one that is no number or out of range, or one twice.

    >>> seeds("0-3,12")
    [0, 1, 2, 3, 12]
    """
    found = list(_entries(given, "seeds"))
    words = [entry for entry in found if not isinstance(entry, int)]
    if words:
        raise ConfigError(f"seeds: {words[0]!r} is neither a whole number from 0, a range as 0-15, nor a file.")
    outside = [entry for entry in found if not 0 <= int(entry) <= LARGEST_SEED]
    if outside:
        raise ConfigError(f"seeds: a seed is a whole number from 0 to {LARGEST_SEED} (2**63 - 1), got {outside[0]}.")
    return [int(entry) for entry in _distinct(found, "seeds")]


def conditions(generator: ScaleGenerator, classes: Listed | None, prompts: Listed | None = None) -> list[Any]:
    """Distinct conditions that the generator takes: classes by index or name, or prompts.

    Args:
        generator: checks them.
        classes: as in `seeds`, or names; None is all classes.
        prompts: a text, a list of texts, or a file with one per line.

    Raises:
        ConfigError: both or neither, unknown or repeated ones, or a file that is not there.
    """
    if classes is not None and prompts is not None:
        raise ConfigError("give classes or prompts, not both.")
    found: list[int | str]
    if prompts is not None:
        found = [*_lines(prompts)]
    elif classes is None:
        found = list(range(_class_count(generator)))
    else:
        found = list(_entries(classes, "classes"))
        _check_classes(generator, found)
    checked = generator.conditions(found, len(found))
    _distinct(checked, "classes" if prompts is None else "prompts")
    return checked


def class_name(generator: ScaleGenerator, condition: Any) -> str:
    """The name of a class, its number where it has none; a prompt as it is."""
    names = generator.class_names
    if isinstance(condition, int):
        return str(names[condition]) if condition < len(names) else f"class {condition}"
    return str(condition)


def class_numbers(generator: ScaleGenerator, conditions: Sequence[Any]) -> list[int] | None:
    """The class of each condition, a number or the name that is its prompt; None where one of them is no class."""
    names = generator.class_names
    found = [names.index(each) if isinstance(each, str) and each in names else each for each in conditions]
    return found if all(isinstance(each, int) for each in found) else None


def guidance_texts(given: str | Sequence[str]) -> list[str]:
    """Guidance texts, from a list or from one text with semicolons between them."""
    found = given.split(";") if isinstance(given, str) else list(given)
    texts = [text.strip() for text in found if text.strip()]
    if not texts:
        raise ConfigError("guidances is empty: give one text per row, for instance 'none; cfg(1.5)'.")
    return [str(text) for text in _distinct(texts, "guidances")]


def _class_count(generator: ScaleGenerator) -> int:
    if generator.class_count is None:
        raise ConfigError(f"{generator.name} has no list of classes: say which with --classes or --prompts.")
    return generator.class_count


def _check_classes(generator: ScaleGenerator, found: Sequence[int | str]) -> None:
    """Refuse all unknown classes at once."""
    names, count = generator.class_names, generator.class_count
    unknown = [each for each in found if isinstance(each, str) and each not in names]
    if names:
        # A text model takes any word for a prompt, a mistyped class too.
        told = [f"unknown class {word!r}: {near_matches(word, names)}" for word in unknown]
        wrong = [f"{each.partition(' Known: ')[0].rstrip(':')};" for each in told[:-1]] + told[-1:]
    else:
        wrong = [_no_file("classes", word) for word in unknown if _looks_like_a_file(word)]
    beyond = [str(each) for each in found if isinstance(each, int) and count is not None and not 0 <= each < count]
    if beyond and count is not None:
        more = f" and {len(beyond) - 8} more" if len(beyond) > 8 else ""
        wrong.append(f"a class is an integer from 0 to {count - 1}, got {', '.join(beyond[:8])}{more}.")
    if wrong:
        raise ConfigError(f"{generator.name}: {' '.join(wrong)}")


def _entries(given: Listed, what: str) -> Iterable[int | str]:
    """Numbers and words of a text, a list or a file, ranges spread out."""
    for part in [given] if isinstance(given, int | str) else given:
        if isinstance(part, int):
            yield part
            continue
        file = None if _RANGE.fullmatch(part.strip()) else _file(part)
        for line in [part] if file is None else _file_lines(file):
            for word in filter(None, (word.strip() for word in line.split(","))):
                yield from _spread(word, what)


def _spread(word: str, what: str) -> Iterable[int | str]:
    if _NUMBER.fullmatch(word):
        return [int(word)]
    match = _RANGE.fullmatch(word)
    if match is None:
        return [word]
    first, last = map(int, match.groups())
    if last < first:
        raise ConfigError(f"{what}: the range {word} is empty; write it from the smaller number, as {last}-{first}.")
    if last - first >= LONGEST_RANGE:
        raise ConfigError(
            f"{what}: the range {word} has {last - first + 1:,} numbers; one range has at most {LONGEST_RANGE:,}."
        )
    return range(first, last + 1)


def _lines(given: Listed) -> list[str]:
    """Prompts: the lines of those parts that are files, and the others as they are."""
    found: list[str] = []
    for part in map(str, [given] if isinstance(given, int | str) else given):
        file = _file(part)
        if file is None and _looks_like_a_file(part):
            raise ConfigError(_no_file("prompts", part))
        found.extend([part] if file is None else _file_lines(file))
    return found


def _file(text: str) -> Path | None:
    """The file of that name, if there is one."""
    try:
        file = Path(text).expanduser()
        return file if text.strip() and file.is_file() else None
    except (OSError, RuntimeError, ValueError):
        # A long text is no file name, and "~ 3 trees" is nobody's home.
        return None


def _looks_like_a_file(text: str) -> bool:
    word = text.strip()
    return word.lower().endswith(TEXT_FILES) or bool(re.fullmatch(r"\S*[/\\]\S*", word))


def _no_file(what: str, text: str) -> str:
    return (
        f"{what}: {text!r} reads like the name of a file, and there is no such file; a text that looks like one is "
        "taken from a file with one per line."
    )


def _file_lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the list {file}: {error}.") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _distinct(found: Sequence[Any], what: str) -> Sequence[Any]:
    if not found:
        raise ConfigError(f"{what} is empty: give at least one, for instance --{what} 0-7.")
    repeated = sorted(str(entry) for entry, times in Counter(found).items() if times > 1)
    if repeated:
        raise ConfigError(f"{what} repeat, which would make the same image twice: {', '.join(repeated[:8])}.")
    return found

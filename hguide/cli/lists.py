"""Seeds, classes and prompts as they are written on a command line: lists, ranges and files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hguide.errors import ConfigError, near_matches
from hguide.generator import ScaleGenerator

__all__ = ["class_name", "class_numbers", "conditions", "guidance_texts", "seeds"]

Listed = int | str | Sequence[int | str]

_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")
_LARGEST_RANGE = 10_000_000


def seeds(given: Listed) -> list[int]:
    """Distinct seeds.

    Args:
        given: "0-15", "0-7,12", a number, a list of them, or a file with such entries.

    Raises:
        ConfigError: none, one that is no number, or one twice.

    >>> seeds("0-3,12")
    [0, 1, 2, 3, 12]
    """
    found = list(_entries(given, "seeds"))
    words = [entry for entry in found if not isinstance(entry, int)]
    if words:
        raise ConfigError(f"seeds: {words[0]!r} is neither a whole number from 0, a range as 0-15, nor a file.")
    return [int(entry) for entry in _distinct(found, "seeds")]


def conditions(generator: ScaleGenerator, classes: Listed | None, prompts: Listed | None = None) -> list[Any]:
    """Distinct conditions that the generator takes: classes by index or name, or prompts.

    Args:
        generator: checks them.
        classes: as in `seeds`, or names; None is all classes.
        prompts: a text, a list of texts, or a file with one per line.

    Raises:
        ConfigError: both or neither, unknown or repeated ones.
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
        _check_names(generator, found)
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


def _check_names(generator: ScaleGenerator, found: Sequence[int | str]) -> None:
    # A text model takes any word for a prompt, a mistyped class too.
    names = generator.class_names
    unknown = [each for each in found if isinstance(each, str) and names and each not in names]
    if unknown:
        raise ConfigError(f"{generator.name}: unknown class {unknown[0]!r}: {near_matches(unknown[0], names)}")


def _entries(given: Listed, what: str) -> Iterable[int | str]:
    """Numbers and words of a text, a list or a file, ranges spread out."""
    for part in [given] if isinstance(given, int | str) else given:
        if isinstance(part, int):
            yield part
            continue
        file = Path(part).expanduser()
        if part.strip() and not _RANGE.fullmatch(part.strip()) and file.is_file():
            for line in _file_lines(file):
                yield from _entries(line, what)
            continue
        for word in filter(None, (word.strip() for word in part.split(","))):
            yield from _spread(word, what)


def _spread(word: str, what: str) -> Iterable[int | str]:
    if word.isdecimal():
        return [int(word)]
    match = _RANGE.fullmatch(word)
    if match is None:
        return [word]
    first, last = map(int, match.groups())
    if last < first or last - first >= _LARGEST_RANGE:
        raise ConfigError(f"{what}: the range {word} is empty or too long; write it from the smaller number.")
    return range(first, last + 1)


def _lines(given: Listed) -> list[str]:
    found: list[str] = []
    for part in [given] if isinstance(given, int | str) else given:
        file = Path(str(part)).expanduser()
        is_file = len(str(part)) < 1024 and file.is_file()
        found.extend(_file_lines(file) if is_file else [str(part)])
    return found


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

"""YAML with the line of each entry, and a list of what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from hguide.errors import ConfigError

__all__ = ["Document", "Place", "Problems", "read_yaml"]

_PLAIN = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")

Place = tuple[str | int, ...]
"""Keys and indices from the top to an entry."""


@dataclass(frozen=True)
class Document:
    """A YAML text that was read.

    Attributes:
        value: dictionaries, lists and plain values.
        lines: place -> line, from 1.
        repeated: places whose key stands twice, with the line of the second.
    """

    value: Any
    lines: Mapping[Place, int]
    repeated: tuple[tuple[Place, int], ...] = ()


def read_yaml(text: str) -> Document:
    """Read YAML of plain values (no tags that construct objects).

    Raises:
        ConfigError: the text is no such YAML; names the line.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        reading = _Reading(loader)
        value = None if node is None else reading.value(node, ())
    except yaml.MarkedYAMLError as error:
        line = "?" if error.problem_mark is None else error.problem_mark.line + 1
        raise ConfigError(f"line {line}: {error.problem or error.context}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{' '.join(str(error).split())[:200]}.") from error
    finally:
        loader.dispose()
    return Document(value, reading.lines, tuple(reading.repeated))


@dataclass
class _Reading:
    loader: yaml.SafeLoader
    lines: dict[Place, int] = field(default_factory=dict)
    repeated: list[tuple[Place, int]] = field(default_factory=list)

    def value(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(place, line)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN:
            raise ValueError(f"line {line}: plain lists and mappings only, got {node.tag}")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*place, index)) for index, each in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        return self.loader.construct_object(node, deep=True)

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.loader.construct_object(key_node, deep=True)
            inside, line = (*place, key), key_node.start_mark.line + 1
            if not isinstance(key, str | int):
                raise ValueError(f"line {line}: a key is a word, got {key!r}")
            if key in found:
                self.repeated.append((inside, line))
                continue
            self.lines[inside] = line
            found[key] = self.value(value_node, inside)
        return found


@dataclass
class Problems:
    """What is wrong with a document, gathered before any of it is raised.

    Attributes:
        lines: of the document.
        found: line, from 1, or 0 for the whole, and text.
    """

    lines: Mapping[Place, int]
    found: list[tuple[int, str]] = field(default_factory=list)

    def line(self, place: Place) -> int:
        """The line of an entry, or of the nearest that contains it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 0) if place else 0

    def add(self, place: Place, text: str) -> None:
        """Note a problem; the same one is noted once."""
        entry = (self.line(place), text)
        if entry not in self.found:
            self.found.append(entry)

    def raise_any(self, where: str) -> None:
        """Raise all that was noted.

        Raises:
            ConfigError: something was noted; one entry per line of the message, with the line of the document.
        """
        if not self.found:
            return
        count = f"{len(self.found)} mistakes" if len(self.found) > 1 else "a mistake"
        listed = []
        for line, text in sorted(self.found, key=lambda each: each[0]):
            head = f"  line {line}: " if line else "  "
            listed.append(head + text.replace("\n", "\n" + " " * 6))
        raise ConfigError(f"{where} has {count}:\n" + "\n".join(listed))

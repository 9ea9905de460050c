"""The text form of guidances, priors and schedules, one grammar in the CLI, in YAML and in Python."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from hguide import priors, schedules
from hguide.errors import HGuideError, ParseError, RegistryError, near_matches
from hguide.guidance.base import Guidance, registry
from hguide.guidance.compose import Identity, add, chain
from hguide.priors import Prior
from hguide.registry import Registry
from hguide.schedules import Schedule
from hguide.text import Call, List, Name, Node, Number, Operation, fail, read

__all__ = ["parse", "parse_entry", "parse_prior", "parse_schedule", "text_of"]


def parse(text: str) -> Guidance:
    """The guidance written in `text`; `parse(str(g)) == g`.

    `|` chains and binds weaker than `+`, which adds increments. Values are numbers, names, calls or [lists]; a bare
    name means what its field asks for: a prior, a schedule or a word. `none` is no guidance.

    Args:
        text: for instance `(cfg(1.5) + pag(1.0)) | ssg(0.8, prior=dse(gain=amplitude), schedule=linear)`.

    Raises:
        ParseError: the text cannot be read; points at the character, with near matches for names.

    Example:
        >>> str(parse("cfg | ssg(0.8, schedule=cosine)"))
        'cfg(1.5) | ssg(0.8, schedule=cosine)'
    """
    return _Builder(text).guidance(read(text))


def parse_prior(text: str) -> Prior:
    """The prior written in `text`, for instance `dse(transform=dft)`; errors as in `parse`."""
    return _Builder(text).entry(read(text), priors.registry)


def parse_schedule(text: str) -> Schedule:
    """The schedule written in `text`, for instance `cosine(2.0)`; errors as in `parse`."""
    return _Builder(text).entry(read(text), schedules.registry)


def parse_entry(text: str, entries: Registry[Any]) -> Any:
    """What `text` says of another registry's entries; errors as in `parse`.

    Args:
        text: a name or a call.
        entries: of which the name is one.
    """
    return _Builder(text).entry(read(text), entries)


class _Builder:
    def __init__(self, text: str) -> None:
        self.text = text

    def guidance(self, node: Node) -> Guidance:
        if isinstance(node, Operation):
            parts = [self.guidance(part) for part in node.parts]
            return chain(*parts) if node.symbol == "|" else add(*parts)
        if isinstance(node, Name) and node.text == "none":
            return Identity()
        return self.entry(node, registry)

    def entry(self, node: Node, entries: Registry[Any]) -> Any:
        if not isinstance(node, Name | Call):
            raise fail(self.text, node.at, f"expected the name of a {entries.kind}.")
        name = node.text if isinstance(node, Name) else node.name
        try:
            cls = entries.get(name)
        except RegistryError as error:
            raise fail(self.text, node.at, str(error)) from None
        arguments = self.arguments(node, cls, name) if isinstance(node, Call) else {}
        try:
            return cls(**arguments)
        except ParseError:
            raise
        except HGuideError as error:
            raise fail(self.text, node.at, str(error)) from error

    def arguments(self, node: Call, cls: type, name: str) -> dict[str, Any]:
        known = _options(cls)
        hints = typing.get_type_hints(cls)
        ordered = [field for field in known.values() if not field.kw_only]
        if len(node.items) > len(ordered):
            extra = node.items[len(ordered)]
            raise fail(self.text, extra.at, f"{name} takes {len(ordered)} values without a name.")
        found: dict[str, Any] = {}
        for field, item in zip(ordered, node.items, strict=False):
            found[field.name] = self.value(item, hints[field.name], f"{name}'s {field.name}")
        for key, item in node.keys:
            if key.text not in known:
                raise fail(self.text, key.at, f"{name} has no option {key.text!r}: {near_matches(key.text, known)}")
            if key.text in found:
                raise fail(self.text, key.at, f"{key.text} is given twice.")
            found[key.text] = self.value(item, hints[key.text], f"{name}'s {key.text}")
        return found

    def value(self, node: Node, hint: Any, what: str) -> Any:
        kinds = _kinds(hint)
        if isinstance(node, Number):
            return self.number(node, kinds, what)
        if isinstance(node, List):
            inner = next((kind for kind in kinds if typing.get_origin(kind) in (tuple, Sequence)), None)
            if inner is None:
                raise fail(self.text, node.at, f"{what} is no list.")
            return tuple(self.value(item, typing.get_args(inner)[0], what) for item in node.items)
        for kind, entries in ((Schedule, schedules.registry), (Prior, priors.registry)):
            if kind in kinds and (isinstance(node, Call) or str not in kinds):
                return self.named(node, kinds, entries)
        if isinstance(node, Operation) or (isinstance(node, Call) and Guidance in kinds):
            return self.guidance(node)
        if isinstance(node, Name):
            return self.word(node, kinds, what)
        raise fail(self.text, node.at, f"{what} is no call.")

    def named(self, node: Node, kinds: tuple[Any, ...], entries: Registry[Any]) -> Any:
        if isinstance(node, Name) and node.text == "none" and types.NoneType in kinds:
            return None
        return self.entry(node, entries)

    def number(self, node: Number, kinds: tuple[Any, ...], what: str) -> float | int:
        if isinstance(node.value, int) and int in kinds and float not in kinds:
            return node.value
        if float in kinds:
            return float(node.value)
        raise fail(self.text, node.at, f"{what} is {'a whole' if int in kinds else 'no'} number.")

    def word(self, node: Name, kinds: tuple[Any, ...], what: str) -> Any:
        if bool in kinds and node.text in ("true", "false"):
            return node.text == "true"
        if types.NoneType in kinds and node.text == "none":
            return None
        if str in kinds:
            return node.text
        raise fail(self.text, node.at, f"{what} cannot be the word {node.text!r}.")


def text_of(value: Any, *others: Registry[Any]) -> str:
    """The text form of a registered guidance, prior or schedule: its strength, and what differs from the defaults.

    Args:
        value: the entry.
        others: further registries that may hold it.
    """
    known: tuple[Registry[Any], ...] = (registry, priors.registry, schedules.registry, *others)
    name = next((found for each in known if (found := each.name_of(type(value)))), None)
    if name is None:
        return repr(value)
    options = _options(type(value))
    shown = []
    for place, field in enumerate(options.values()):
        current = getattr(value, field.name)
        strength = place == 0 and isinstance(value, Guidance) and current is not None
        if not strength and current == _default(field):
            continue
        text = _value_text(current)
        shown.append(text if place == 0 and not field.kw_only else f"{field.name}={text}")
    return f"{name}({', '.join(shown)})" if shown else name


def _value_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value_text, value))}]"
    if isinstance(value, Prior | Schedule):
        return text_of(value)
    return str(value)


def _options(cls: type) -> dict[str, Field[Any]]:
    return {field.name: field for field in sorted(fields(cls), key=lambda field: bool(field.kw_only)) if field.init}


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else MISSING


def _kinds(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(kind for part in typing.get_args(hint) for kind in _kinds(part))
    if typing.get_origin(hint) is typing.Literal:
        return (str,)
    return (hint,)

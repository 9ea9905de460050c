"""The settings of a configuration: the product of its axes and the listed cells, and which values cannot be read."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hguide.errors import HGuideError, near_matches
from hguide.experiments.ablation.config import AXES, Config
from hguide.experiments.ablation.yaml_lines import Place
from hguide.guidance import parse, parse_prior, parse_schedule
from hguide.provenance import sampler_from

__all__ = ["FILLED", "Setting", "models_named", "place_of", "read_settings"]

FILLED = ("prior", "schedule", "strength")
"""Axes that act through {placeholders} of the guidance."""

DEFAULTS: Mapping[str, Any] = {"model": "landuse-var", "sampler": {}, "temperature": 1.0}
READ_ALONE: Mapping[str, Callable[[Any], Any]] = {
    "prior": parse_prior,
    "schedule": parse_schedule,
    "sampler": sampler_from,
    "temperature": lambda value: sampler_from({"temperature": value}),
}
# In the place of what is missing or wrong, so that the rest of a guidance is still read.
STAND_INS = {"prior": "nearest", "schedule": "constant", "strength": "1.0"}
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, eq=False)
class Setting:
    """A value of each axis, before any of it is read.

    Attributes:
        label: as given, for a listed cell.
        axes: axis -> value; None where there is none.
        place: in the configuration.
    """

    label: str | None
    axes: Mapping[str, Any]
    place: Place

    @property
    def template(self) -> str:
        """The guidance as written."""
        return str(self.axes["guidance"])

    @property
    def placeholders(self) -> tuple[str, ...]:
        """Names in braces in the guidance, each once."""
        return tuple(dict.fromkeys(_PLACEHOLDER.findall(self.template)))

    def filled(self, values: Mapping[str, Any] | None = None) -> str:
        """The guidance with values, by default its own, for its placeholders."""
        given = self.axes if values is None else values
        return _PLACEHOLDER.sub(lambda match: str(given.get(match[1])), self.template)


Wrong = set[tuple[str, ...]]
"""Axis and text of values that cannot be read; for a strength, the guidance in between."""


def place_of(config: Config, place: Place, axis: str, value: Any) -> Place:
    """Where a cell's value of an axis is written: in the cell itself, or at the axis.

    Args:
        config: as read.
        place: of the cell.
        axis: one of `AXES`.
        value: that the cell has.
    """
    if any(cell.place == place and axis in cell.axes for cell in config.cells):
        return (*place, axis)
    known = zip(config.places.get(axis, ()), config.axes.get(axis, ()), strict=True)
    return next((at for at, each in known if each == value), (axis,))


def models_named(config: Config) -> dict[str, list[Place]]:
    """Model -> the places that name it; the default one where none is named and one is needed."""
    found: dict[str, list[Place]] = {}
    for place, model in _placed(config, "model"):
        found.setdefault(str(model), []).append(place)
    needed = "guidance" in config.axes or not config.cells or any("model" not in cell.axes for cell in config.cells)
    if needed and "model" not in config.axes:
        found.setdefault(DEFAULTS["model"], []).append(("model",))
    return found


def read_settings(config: Config) -> tuple[list[Setting], list[Setting]]:
    """The product of the axes, then the listed cells: those that can be read, and those that cannot.

    What is wrong with the latter is noted in `config.problems`, each mistake once.

    Args:
        config: as read.
    """
    _check_placeholders(config)
    settings = [*_product(config), *_listed(config)]
    wrong = _wrong_alone(config)
    wrong |= _wrong_guidances(config, settings, wrong)
    readable: list[Setting] = []
    unread: list[Setting] = []
    for setting in settings:
        fine = not _has_wrong(setting, wrong) and _is_filled(config, setting) and _reads(config, setting)
        (readable if fine else unread).append(setting)
    return readable, unread


def _given(config: Config) -> dict[str, tuple[Any, ...]]:
    # An axis whose values were all refused goes on with its default, so that the rest is still looked at.
    return {axis: config.axes.get(axis) or (DEFAULTS.get(axis),) for axis in AXES}


def _product(config: Config) -> Iterator[Setting]:
    given = _given(config)
    rest = [axis for axis in AXES if axis != "guidance"]
    for text, place in zip(config.axes.get("guidance", ()), config.places.get("guidance", ()), strict=True):
        for values in itertools.product(*(given[axis] for axis in rest)):
            yield Setting(None, {"guidance": text, **dict(zip(rest, values, strict=True))}, place)


def _listed(config: Config) -> Iterator[Setting]:
    given = _given(config)
    for cell in config.cells:
        axes = dict(cell.axes)
        for axis in AXES:
            if axis in axes:
                continue
            if len(given[axis]) > 1 and (axis not in FILLED or f"{{{axis}}}" in str(axes.get("guidance", ""))):
                config.problems.add(cell.place, f"{axis} has several values: a cell says which is its own.")
            axes[axis] = next(iter(given[axis]), None)
        if axes["guidance"] is not None:
            yield Setting(cell.label, axes, cell.place)
        elif "guidance" not in config.axes:
            config.problems.add(cell.place, "a cell needs a guidance; 'none' is one.")


def _check_placeholders(config: Config) -> None:
    """Note unknown placeholders, and axes that need a placeholder and have none."""
    used = set()
    for place, text in _placed(config, "guidance"):
        for name in _PLACEHOLDER.findall(str(text)):
            used.add(name)
            if name not in FILLED:
                config.problems.add(place, f"unknown placeholder {{{name}}}: {near_matches(name, FILLED)}")
    for axis in FILLED:
        if axis in config.axes and axis not in used:
            config.problems.add((axis,), f"{axis} is given, but no guidance has the placeholder {{{axis}}}.")
    for cell in config.cells:
        text = str(cell.axes.get("guidance", next(iter(config.axes.get("guidance", ())), "")))
        for axis in FILLED:
            if axis in cell.axes and f"{{{axis}}}" not in text:
                config.problems.add((*cell.place, axis), f"the cell's guidance has no placeholder {{{axis}}}.")


def _placed(config: Config, axis: str) -> list[tuple[Place, Any]]:
    """The values of an axis where they are written, in the listed cells too."""
    found = list(zip(config.places.get(axis, ()), config.axes.get(axis, ()), strict=True))
    return found + [((*cell.place, axis), cell.axes[axis]) for cell in config.cells if axis in cell.axes]


def _wrong_alone(config: Config) -> Wrong:
    """Values that cannot be read whatever the others are, noted where they are written, not once per setting."""
    wrong: Wrong = set()
    for axis, read in READ_ALONE.items():
        for place, value in _placed(config, axis):
            try:
                if value != "none":
                    read(value)
            except (HGuideError, TypeError) as error:
                text = str(error).removeprefix("Sampler: ")
                config.problems.add(place, text if text.startswith(f"{axis} is ") else f"{axis}: {text}")
                wrong.add((axis, str(value)))
    return wrong


def _wrong_guidances(config: Config, settings: Sequence[Setting], wrong: Wrong) -> Wrong:
    """Guidances that cannot be read whatever fills them, and strengths that cannot be read in their guidance."""
    found: Wrong = set()
    seen = set()
    for setting in settings:
        values = _stand_ins(config, setting, wrong)
        place = setting.place if setting.place[0] == "cells" else ()
        if values is None or (place, setting.template, str(values["strength"])) in seen:
            continue
        seen.add((place, setting.template, str(values["strength"])))
        if problem := _problem(setting.filled({**values, "strength": STAND_INS["strength"]})):
            at = place_of(config, setting.place, "guidance", setting.axes["guidance"])
            config.problems.add(at, f"guidance: {problem}")
            found.add(("guidance", setting.template))
        elif problem := _problem(setting.filled(values)):
            at = place_of(config, setting.place, "strength", setting.axes["strength"])
            config.problems.add(at, f"strength: {problem}")
            found.add(("strength", setting.template, str(setting.axes["strength"])))
    return found


def _stand_ins(config: Config, setting: Setting, wrong: Wrong) -> dict[str, Any] | None:
    """What fills a guidance so that the rest of it is read: its own values, but for those missing or wrong.

    A placeholder that is misspelt has the value of the one that was meant; None where that cannot be told.
    """
    values: dict[str, Any] = dict(STAND_INS)
    for name in FILLED:
        own = [setting.axes[name], *config.axes.get(name, ())] if name != "strength" else [setting.axes[name]]
        right = [each for each in own if each is not None and (name, str(each)) not in wrong]
        values[name] = right[0] if right else values[name]
    for name in setting.placeholders:
        meant = difflib.get_close_matches(name, FILLED, n=1, cutoff=0.5)
        if not meant:
            return None
        if name not in FILLED:
            values[name] = STAND_INS["strength"] if meant[0] == "strength" else values[meant[0]]
    return values


def _has_wrong(setting: Setting, wrong: Wrong) -> bool:
    acting = [axis for axis in AXES if axis not in FILLED or axis in setting.placeholders]
    strength = ("strength", setting.template, str(setting.axes["strength"]))
    return strength in wrong or any((axis, str(setting.axes[axis])) in wrong for axis in acting)


def _is_filled(config: Config, setting: Setting) -> bool:
    """Whether each placeholder has a value; that none is given is noted, if it was not refused before."""
    missing = [name for name in setting.placeholders if name in FILLED and setting.axes[name] is None]
    for name in missing:
        if name not in config.axes:
            text = f"the guidance {setting.template!r} has the placeholder {{{name}}}, but no {name} is given."
            config.problems.add(setting.place, text)
    return not missing and set(setting.placeholders) <= set(FILLED)


def _reads(config: Config, setting: Setting) -> bool:
    """Whether the values fit together."""
    problem = _problem(setting.filled())
    if problem is not None:
        at = place_of(config, setting.place, "guidance", setting.axes["guidance"])
        config.problems.add(at, f"guidance: {problem}")
    return problem is None


def _problem(text: str) -> str | None:
    """Why a guidance cannot be read."""
    try:
        parse(text)
    except HGuideError as error:
        return str(error)
    return None

"""From the axes of a configuration to cells."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hguide.cli.options import sampler_from
from hguide.errors import HGuideError, near_matches
from hguide.experiments.ablation.config import AXES, Config
from hguide.experiments.ablation.yaml_lines import Place
from hguide.guidance import Guidance, parse, parse_prior, parse_schedule
from hguide.provenance import sampler_facts
from hguide.sampling import Sampler

__all__ = ["Cell", "read_cells"]

FILLED = ("prior", "schedule", "strength")
"""Axes that act through {placeholders} of the guidance."""

READ_ALONE: Mapping[str, Callable[[Any], Any]] = {
    "prior": parse_prior,
    "schedule": parse_schedule,
    "temperature": lambda value: sampler_from({"temperature": value}),
}
DEFAULTS: Mapping[str, Any] = {"model": "landuse-var", "sampler": {}, "temperature": 1.0}
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, eq=False)
class Cell:
    """One setting of all axes.

    Attributes:
        label: in words.
        axes: axis -> value as written; None where it does not act.
        model: name or path.
        guidance: as parsed.
        sampler: temperature and filters.
        place: in the configuration.
    """

    label: str
    axes: Mapping[str, Any]
    model: str
    guidance: Guidance
    sampler: Sampler
    place: Place

    @property
    def sampler_facts(self) -> dict[str, Any]:
        """The sampler as numbers, lists and texts."""
        return sampler_facts(self.sampler)

    @property
    def meaning(self) -> tuple[str, str, str]:
        """Equal for cells whose images are the same."""
        return self.model, str(self.guidance), json.dumps(self.sampler_facts)


def read_cells(config: Config) -> tuple[Cell, ...]:
    """The cells of the product of the axes, then those listed; mistakes are noted in `config.problems`.

    Cells that mean the same are one. Labels are those given, or the guidance and what else differs.

    Args:
        config: as read.
    """
    _check_use(config)
    wrong = _wrong_values(config)
    found: list[Cell] = []
    for label, axes, place in _settings(config):
        cell = (
            None if any((axis, str(axes[axis])) in wrong for axis in READ_ALONE) else _cell(config, label, axes, place)
        )
        twin = next((each for each in found if cell is not None and each.meaning == cell.meaning), None)
        if twin is not None and cell is not None:
            found[found.index(twin)] = replace(twin, label=twin.label or cell.label)
        elif cell is not None:
            found.append(cell)
    if not found and not config.problems.found:
        config.problems.add((), "no cells: give a guidance, or a list of cells.")
    return _labelled(config, found)


def varied_axes(cells: tuple[Cell, ...]) -> tuple[str, ...]:
    """The axes that differ."""
    return tuple(axis for axis in AXES if len({json.dumps(cell.axes[axis]) for cell in cells}) > 1)


def _check_use(config: Config) -> None:
    """Placeholders need their axis, and such an axis a placeholder."""
    texts: list[tuple[Place, Any]] = [(("guidance", i), text) for i, text in enumerate(config.axes.get("guidance", ()))]
    texts += [((*cell.place, "guidance"), cell.axes["guidance"]) for cell in config.cells if "guidance" in cell.axes]
    used = set()
    for place, text in texts:
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


def _wrong_values(config: Config) -> set[tuple[str, str]]:
    """Priors, schedules and temperatures that cannot be read, noted where they are written, not once per cell."""
    wrong = set()
    for axis, read in READ_ALONE.items():
        several = isinstance(config.source.get(axis), list)
        places: list[tuple[Place, Any]] = [
            ((axis, i) if several else (axis,), value) for i, value in enumerate(config.axes.get(axis, ()))
        ]
        places += [((*cell.place, axis), cell.axes[axis]) for cell in config.cells if axis in cell.axes]
        for place, value in places:
            try:
                if value != "none":
                    read(value)
            except (HGuideError, TypeError) as error:
                config.problems.add(place, f"{axis}: {error}")
                wrong.add((axis, str(value)))
    return wrong


def _settings(config: Config) -> Iterator[tuple[str | None, dict[str, Any], Place]]:
    """Label, axes and place of each cell, before its texts are read."""
    # An axis whose values were all refused goes on with its default, so that the rest is still looked at.
    given = {axis: config.axes.get(axis) or (DEFAULTS.get(axis),) for axis in AXES}
    if "guidance" in config.axes:
        several = isinstance(config.source.get("guidance"), list)
        for index, text in enumerate(given["guidance"]):
            place: Place = ("guidance", index) if several else ("guidance",)
            rest = [axis for axis in AXES if axis != "guidance"]
            for values in itertools.product(*(given[axis] for axis in rest)):
                yield None, {"guidance": text, **dict(zip(rest, values, strict=True))}, place
    for cell in config.cells:
        axes = dict(cell.axes)
        for axis in AXES:
            if axis in axes:
                continue
            if len(given[axis]) > 1 and (axis not in FILLED or f"{{{axis}}}" in str(axes.get("guidance", ""))):
                config.problems.add(cell.place, f"{axis} has several values: a cell says which is its own.")
            axes[axis] = next(iter(given[axis]), None)
        if axes["guidance"] is None:
            config.problems.add(cell.place, "a cell needs a guidance; 'none' is one.")
            continue
        yield cell.label, axes, cell.place


def _cell(config: Config, label: str | None, axes: dict[str, Any], place: Place) -> Cell | None:
    """A cell, or None where a text cannot be read."""
    template = str(axes["guidance"])
    names = set(_PLACEHOLDER.findall(template))
    if names - set(FILLED):
        return None
    missing = [name for name in FILLED if name in names and axes[name] is None]
    for name in missing:
        config.problems.add(place, f"the guidance {template!r} has the placeholder {{{name}}}, but no {name} is given.")
    if missing:
        return None
    text = _PLACEHOLDER.sub(lambda match: str(axes[match[1]]), template)
    try:
        guidance = parse(text)
    except HGuideError as error:
        config.problems.add(place, f"guidance: {error}")
        return None
    sampler = _sampler(config, axes, place)
    if sampler is None:
        return None
    shown = {axis: axes[axis] for axis in AXES} | {name: None for name in FILLED if name not in names}
    shown["sampler"] = ", ".join(f"{name}={axes['sampler'][name]}" for name in sorted(axes["sampler"])) or "all tokens"
    return Cell(label or "", shown, str(axes["model"]), guidance, sampler, place)


def _sampler(config: Config, axes: dict[str, Any], place: Place) -> Sampler | None:
    try:
        return sampler_from({**axes["sampler"], "temperature": _floats(axes["temperature"])})
    except (HGuideError, TypeError) as error:
        config.problems.add((*place, "sampler") if place[0] == "cells" else ("sampler",), f"sampler: {error}")
        return None


def _floats(value: Any) -> Any:
    """1 as 1.0, so that both are one cell."""
    if isinstance(value, list):
        return [float(each) for each in value]
    return float(value) if isinstance(value, int) else value


def _labelled(config: Config, cells: list[Cell]) -> tuple[Cell, ...]:
    """Cells with their labels, all different."""
    varied = varied_axes(tuple(cells)) if cells else ()
    named = [replace(cell, label=cell.label or _words(cell, varied)) for cell in cells]
    if isinstance(config.labels, tuple):
        if config.labels and len(config.labels) != len(named):
            config.problems.add(("labels",), f"{len(config.labels)} labels are given for {len(named)} cells.")
        elif config.labels:
            named = [replace(cell, label=label) for cell, label in zip(named, config.labels, strict=True)]
    else:
        for key in config.labels:
            if key not in {name for cell in named for name in _names(cell)} and not config.problems.found:
                near = near_matches(key, [cell.label for cell in named])
                config.problems.add(("labels", key), f"labels names no cell {key!r}: {near}")
        named = [
            replace(cell, label=next((config.labels[n] for n in _names(cell) if n in config.labels), cell.label))
            for cell in named
        ]
    labels = [cell.label for cell in named]
    for cell in named:
        if labels.count(cell.label) > 1:
            config.problems.add(cell.place, f"two cells have the label {cell.label!r}; give them others.")
    return tuple(named)


def _names(cell: Cell) -> tuple[str, ...]:
    return cell.label, str(cell.axes["guidance"]), str(cell.guidance)


def _words(cell: Cell, varied: tuple[str, ...]) -> str:
    """The guidance, and the other axes that differ."""
    more = [f"{axis} {cell.axes[axis]}" for axis in ("temperature",) if axis in varied]
    more += [str(cell.axes[axis]) for axis in ("sampler",) if axis in varied]
    return ", ".join([cell.model] * ("model" in varied) + [str(cell.guidance)] + more)


def baseline_of(config: Config, cells: tuple[Cell, ...]) -> Cell | None:
    """The cell that the others are compared with; None, and a note, where there is no such cell."""
    if isinstance(config.baseline, int):
        if 0 <= config.baseline < len(cells):
            return cells[config.baseline]
        config.problems.add(("baseline",), f"baseline is a label or 0 to {len(cells) - 1}, got {config.baseline}.")
        return None
    for cell in cells:
        if config.baseline in _names(cell):
            return cell
    near = near_matches(config.baseline, [cell.label for cell in cells])
    config.problems.add(("baseline",), f"the baseline {config.baseline!r} is the label of no cell: {near}")
    return None

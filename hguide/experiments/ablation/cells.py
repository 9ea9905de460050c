"""From the axes of a configuration to cells."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hguide.errors import near_matches
from hguide.experiments.ablation.config import AXES, Config
from hguide.experiments.ablation.settings import FILLED, Setting, read_settings
from hguide.experiments.ablation.yaml_lines import Place
from hguide.guidance import Guidance, parse
from hguide.provenance import sampler_facts, sampler_from
from hguide.sampling import Sampler

__all__ = ["Cell", "baseline_of", "read_cells", "varied_axes"]

NEARLY_EQUAL = 0.8
"""Similarity of a guidance with a mistake in it and the same without."""


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
    settings, unread = read_settings(config)
    found: list[Cell] = []
    for setting in settings:
        cell = _cell(setting)
        twin = next((each for each in found if each.meaning == cell.meaning), None)
        if twin is None:
            found.append(cell)
        else:
            found[found.index(twin)] = replace(twin, label=twin.label or cell.label)
    if not found and not config.problems.found:
        config.problems.add((), "no cells: give a guidance, or a list of cells.")
    return _labelled(config, found, unread)


def varied_axes(cells: tuple[Cell, ...]) -> tuple[str, ...]:
    """The axes that differ."""
    return tuple(axis for axis in AXES if len({json.dumps(cell.axes[axis]) for cell in cells}) > 1)


def _cell(setting: Setting) -> Cell:
    axes = setting.axes
    shown = {axis: None if axis in FILLED and axis not in setting.placeholders else axes[axis] for axis in AXES}
    shown["sampler"] = ", ".join(f"{name}={axes['sampler'][name]}" for name in sorted(axes["sampler"])) or "all tokens"
    sampler = sampler_from({**axes["sampler"], "temperature": _floats(axes["temperature"])})
    return Cell(setting.label or "", shown, str(axes["model"]), parse(setting.filled()), sampler, setting.place)


def _floats(value: Any) -> Any:
    """1 as 1.0, so that both are one cell."""
    if isinstance(value, list):
        return [float(each) for each in value]
    return float(value) if isinstance(value, int) else value


def _labelled(config: Config, cells: list[Cell], unread: Sequence[Setting]) -> tuple[Cell, ...]:
    """Cells with their labels, all different."""
    varied = varied_axes(tuple(cells)) if cells else ()
    named = [replace(cell, label=cell.label or _words(cell, varied)) for cell in cells]
    if isinstance(config.labels, tuple):
        if config.labels and len(config.labels) == len(named) and not unread:
            named = [replace(cell, label=label) for cell, label in zip(named, config.labels, strict=True)]
        elif config.labels and not unread:
            config.problems.add(("labels",), f"{len(config.labels)} labels are given for {len(named)} cells.")
    else:
        for key in config.labels:
            if not _is_named(config, key, named, unread):
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


def _is_named(config: Config, name: str, cells: Sequence[Cell], unread: Sequence[Setting]) -> bool:
    """Whether a cell has that name, or may have it once the mistakes that are noted are corrected."""
    if any(name in _names(cell) for cell in cells):
        return True
    if not config.problems.found:
        return False
    renamed = config.labels.values() if isinstance(config.labels, Mapping) else config.labels
    texts = [text for setting in unread for text in (setting.template, setting.filled())]
    return (
        name in renamed
        or any(name == cell.label for cell in config.cells)
        or bool(difflib.get_close_matches(name, texts, n=1, cutoff=NEARLY_EQUAL))
    )


def _names(cell: Cell) -> tuple[str, ...]:
    return cell.label, str(cell.axes["guidance"]), str(cell.guidance)


def _words(cell: Cell, varied: tuple[str, ...]) -> str:
    """The guidance, and the other axes that differ."""
    more = [f"{axis} {cell.axes[axis]}" for axis in ("temperature",) if axis in varied]
    more += [str(cell.axes[axis]) for axis in ("sampler",) if axis in varied]
    return ", ".join([cell.model] * ("model" in varied) + [str(cell.guidance)] + more)


def baseline_of(config: Config, cells: tuple[Cell, ...]) -> Cell | None:
    """The cell that the others are compared with; None, and a note, where there is no such cell.

    None without a note where it may be a cell that cannot be read, whose mistakes are noted.

    Args:
        config: as read.
        cells: of the configuration.
    """
    _, unread = read_settings(config)
    count = len(cells) + len(unread)
    if isinstance(config.baseline, int):
        if count and not 0 <= config.baseline < count:
            config.problems.add(("baseline",), f"baseline is a label or 0 to {count - 1}, got {config.baseline}.")
        return cells[config.baseline] if not unread and 0 <= config.baseline < count else None
    for cell in cells:
        if config.baseline in _names(cell):
            return cell
    if count and not _is_named(config, config.baseline, cells, unread):
        labels = [*(cell.label for cell in cells), *(setting.label for setting in unread if setting.label)]
        near = near_matches(config.baseline, labels)
        config.problems.add(("baseline",), f"the baseline {config.baseline!r} is the label of no cell: {near}")
    return None

"""Presets: a table or figure of a paper as cells to run, with the values that the paper reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from hguide.errors import ConfigError, near_matches
from hguide.experiments.paper.families import FAMILIES, Family

__all__ = ["PRESETS", "Preset", "Row", "read_preset"]

PRESETS: tuple[str, ...] = (
    "ssg-table1",
    "ssg-table2",
    "ssg-table3",
    "ssg-table4",
    "ssg-table5",
    "ssg-table6",
    "ssg-table7",
    "ssg-table8",
    "ssg-fig2",
    "ssg-fig4a",
    "ssg-fig4b",
    "ssg-fig5",
    "ssg-fig7",
    "igg-scores",
    "igg-evenness",
)
"""In the order of the papers; IGG's numbering of its figures is not known."""


@dataclass(frozen=True)
class Row:
    """One row of the paper's table.

    Attributes:
        label: of the row.
        guidance: text form, parameters filled in; with {strength} where that is an axis.
        reported: model of the paper -> column -> value.
        temperature: of the sampler.
        strength: for sweeps; None where it is no axis.
    """

    label: str
    guidance: str
    reported: Mapping[str, Mapping[str, float]]
    temperature: float = 1.0
    strength: float | None = None


@dataclass(frozen=True)
class Preset:
    """A table or figure of a paper.

    Attributes:
        name: of the preset.
        kind: "ablation", or an analysis of its own: "frequency" (SSG's Fig. 4a), "completion" (its Fig. 2), "spread"
            (IGG's evenness and divergence).
        title: what it is about.
        source: paper and table.
        note: what is known and what is inferred about the reported values.
        reported: models, data, images and columns of the paper; "asks", columns of a figure whose values are not
            printed; "elsewhere", column -> the tool that measures it, where none here does; "measure", of an analysis:
            what is measured here in place of the paper's.
        sampler: filters of this run.
        baseline: label of the row that the others are compared with.
        rows: to be run.
        published: checkpoint, and what is to be expected of it.
        parameters: as filled in.
    """

    name: str
    kind: str
    title: str
    source: str
    note: str
    reported: Mapping[str, Any]
    sampler: Mapping[str, Any]
    baseline: str
    rows: tuple[Row, ...]
    published: Mapping[str, Any]
    parameters: Mapping[str, float]


@cache
def _document(name: str) -> Mapping[str, Any]:
    import yaml

    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}: {near_matches(name, PRESETS)}")
    return yaml.safe_load((files("hguide.experiments.paper") / "presets" / f"{name}.yaml").read_text(encoding="utf-8"))


def read_preset(
    name: str,
    *,
    published: bool = False,
    parameters: Mapping[str, float] | None = None,
    family: str | None = None,
) -> Preset:
    """A preset with its parameters filled in.

    Args:
        name: one of `PRESETS`.
        published: take the parameters and filters of the paper's own checkpoints, not those of the bundled models.
        parameters: values in place of the preset's, for instance {"beta": 0.5}.
        family: of the model, for presets whose rows are written per family; by default the first that it is of.

    Raises:
        ConfigError: no such preset, a parameter that it does not have, or a family that it is not of.
    """
    document, which = _document(name), "published" if published else "bundled"
    own = _family(name, document, family)
    known = document.get("parameters", {}) if own is None else own.parameters
    values = {key: float(each[which]) for key, each in known.items()}
    for key, value in (parameters or {}).items():
        if key not in known:
            raise ConfigError(f"{name} has no parameter {key!r}: {near_matches(key, known)}")
        values[key] = float(value)
    texts = {} if own is None else {"base": own.base.format(**values), "ssg": own.ssg.format(**values)}
    samplers = document.get("sampler", {}) if own is None else {"published": own.sampler}
    checkpoint = {} if own is None else {"model": own.checkpoint, "load": own.options}
    return Preset(
        name=name,
        kind=document.get("kind", "ablation"),
        title=document["title"],
        source=document["source"],
        note=document.get("note", "").strip(),
        reported=document["reported"],
        sampler=samplers.get(which, {}),
        baseline=document["baseline"],
        rows=tuple(_rows(document, {**values, **texts})),
        published={**document.get("published", {}), **checkpoint},
        parameters=values,
    )


def _family(name: str, document: Mapping[str, Any], family: str | None) -> Family | None:
    """The settings of the model's family, where the rows of a preset are written per family."""
    known = document.get("families")
    if known is None:
        return None
    chosen = family or known[0]
    if chosen not in known:
        raise ConfigError(f"{name} is of models of {', '.join(known)}; give one with --model, not one of {chosen}.")
    return FAMILIES[chosen]


def _rows(document: Mapping[str, Any], values: Mapping[str, Any]) -> Sequence[Row]:
    rows = [
        Row(
            label=row["label"],
            guidance=row["guidance"].format(**values, strength="{strength}"),
            reported=row.get("reported", {}),
            strength=row.get("strength"),
        )
        for row in document.get("rows", ())
    ]
    for sweep in document.get("sweeps", ()):
        axis = "temperature" if "temperature" in sweep else "strength"
        guidance = sweep["guidance"].format(**values, strength="{strength}")
        rows += [Row(sweep["label"].format(**{axis: each}), guidance, {}, **{axis: each}) for each in sweep[axis]]
    return rows

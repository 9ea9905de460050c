"""The results of an ablation as one file, results.json: what the engine writes and the report reads."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from hguide.errors import ConfigError
from hguide.images import write_bytes

__all__ = [
    "SCHEMA",
    "STATUSES",
    "CellResult",
    "Comparison",
    "Estimate",
    "MeasureInfo",
    "Results",
    "Spectrum",
]

SCHEMA = "hguide.results/1"
STATUSES = ("done", "partial", "failed", "missing")


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % bootstrap interval.

    Attributes:
        estimate: on all images, each once.
        low: lower end.
        high: upper end.
        bias: mean over the replicates less the estimate; already taken out of a centred interval.
    """

    estimate: float
    low: float
    high: float
    bias: float = 0.0


@dataclass(frozen=True)
class MeasureInfo:
    """A column of the table.

    Attributes:
        key: "kd", "fd", "sfd", "precision", "recall", "score", "accuracy", "spectrum_distance", "kd_squeezenet",
            "fd_squeezenet".
        name: as it stands in tables.
        higher_is_better: direction; None where neither end is good.
        digits: after the point.
        description: one sentence.
        network: the feature network it stands on, None for measures of pixels.
        interval: "percentile" or "centred" (the percentile interval less the bias of the replicates).
    """

    key: str
    name: str
    higher_is_better: bool | None
    digits: int
    description: str
    network: str | None = None
    interval: str = "percentile"


@dataclass(frozen=True)
class Spectrum:
    """Mean radial power of generated pictures over that of real ones, luminance.

    Attributes:
        frequency: upper edge of each bin in cycles per pixel, up to 0.5.
        ratio: per bin; 1 everywhere is best.
    """

    frequency: tuple[float, ...]
    ratio: tuple[float, ...]


@dataclass(frozen=True)
class CellResult:
    """A row of the table.

    Attributes:
        hash: first 12 hexadecimal digits of the sha256 of what its images follow from.
        label: in words.
        axes: "model", "guidance" (as written in the configuration), "prior", "schedule", "strength", "sampler" and
            "temperature"; None where the axis does not act on the cell.
        varied: the axes that differ over the cells of the table.
        guidance: text form, as parsed.
        model_hash: `hguide.provenance.model_hash`.
        status: one of `STATUSES`.
        error: why it failed, one line.
        count: images measured.
        measures: key -> number and interval; empty unless done.
        seconds_per_image: sampling and decoding, mean over the blocks.
        peak_memory_mb: of the device, where it tells.
        streams: the largest number of streams at a step.
        network_calls: steps of a run, each one forward of all streams.
        spectrum: ratio per frequency.
    """

    hash: str
    label: str
    axes: Mapping[str, Any]
    varied: tuple[str, ...]
    guidance: str
    model_hash: str
    status: str
    error: str | None = None
    count: int = 0
    measures: Mapping[str, Estimate] = field(default_factory=dict)
    seconds_per_image: float | None = None
    peak_memory_mb: float | None = None
    streams: int | None = None
    network_calls: int | None = None
    spectrum: Spectrum | None = None


@dataclass(frozen=True)
class Comparison:
    """A cell's measure less the baseline's, paired: the same seeds and scenes in each replicate.

    Attributes:
        cell: hash of the cell.
        against: hash of the baseline.
        measure: key.
        estimate: of the difference.
        low: lower end.
        high: upper end.
        excludes_zero: whether the interval does.
    """

    cell: str
    against: str
    measure: str
    estimate: float
    low: float
    high: float
    excludes_zero: bool


@dataclass(frozen=True)
class Results:
    """All of results.json.

    Attributes:
        name: of the configuration; short, for file names.
        title: for the head of the report.
        description: a paragraph or empty.
        config: the configuration as read.
        config_hash: sha256 of it.
        provenance: "command", "versions", "device", "reference", "features", "repeat_features", "processes",
            "threads", "started", "finished".
        seeds: "first", "count", "text" as written, "listed" one by one.
        classes: "count", "names", "rule".
        measures: the columns, in order.
        cells: the rows, in the order of the configuration.
        baseline: hash of the cell that the others are compared with.
        floor: key -> test crops against train crops at the same count; keys may be missing.
        comparisons: with the baseline.
    """

    name: str
    title: str
    description: str
    config: Mapping[str, Any]
    config_hash: str
    provenance: Mapping[str, Any]
    seeds: Mapping[str, Any]
    classes: Mapping[str, Any]
    measures: tuple[MeasureInfo, ...]
    cells: tuple[CellResult, ...]
    baseline: str | None = None
    floor: Mapping[str, Estimate] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()

    def __post_init__(self) -> None:
        problems = [*_problems(self)]
        if problems:
            raise ConfigError(f"results of {self.name!r}: " + "; ".join(problems))

    @property
    def results_hash(self) -> str:
        """sha256 of everything but provenance, seconds and memory: equal for runs that must give the same numbers."""
        facts = _plain(self)
        del facts["provenance"]
        for cell in facts["cells"]:
            del cell["seconds_per_image"], cell["peak_memory_mb"]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()

    def cell(self, label_or_hash: str) -> CellResult:
        """The cell of that label or hash.

        Raises:
            ConfigError: there is none.
        """
        for each in self.cells:
            if label_or_hash in (each.label, each.hash):
                return each
        raise ConfigError(f"no cell {label_or_hash!r}; cells: {', '.join(each.label for each in self.cells)}.")

    def to_json(self) -> str:
        """The text of results.json."""
        facts = {"schema": SCHEMA, **_plain(self), "results_hash": self.results_hash}
        return json.dumps(facts, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Results from the text of results.json.

        Raises:
            ConfigError: no JSON, another schema, missing or unknown entries, or a `results_hash` of other numbers.
        """
        try:
            facts = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"results.json is damaged: {error}.") from error
        if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
            found = facts.get("schema") if isinstance(facts, dict) else type(facts).__name__
            raise ConfigError(f"results.json has the schema {found!r}; this version reads {SCHEMA!r}.")
        hashed = facts.pop("results_hash", None)
        del facts["schema"]
        results = _built(cls, facts, "results.json")
        if hashed != results.results_hash:
            raise ConfigError("results.json was changed after it was written: its results_hash is of other numbers.")
        return results

    def write(self, path: str | Path) -> None:
        """Write results.json, whole or not at all."""
        write_bytes(Path(path), self.to_json().encode())

    @classmethod
    def read(cls, path: str | Path) -> Results:
        """Read results.json; a folder stands for the file in it.

        Raises:
            ConfigError: no such file, or as in `from_json`.
        """
        file = Path(path).expanduser()
        file = file / "results.json" if file.is_dir() else file
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read results from {file}: {error}.") from error
        return cls.from_json(text)


T = TypeVar("T")


def _built(cls: type[T], facts: Any, where: str) -> T:
    """A dataclass from a JSON object; its keys must be the fields."""
    if not isinstance(facts, dict):
        raise ConfigError(f"{where}: expected an object, got {type(facts).__name__}.")
    known = {each.name: each for each in fields(cls)}  # type: ignore[arg-type]
    needed = {name for name, each in known.items() if each.default is MISSING and each.default_factory is MISSING}
    wrong = [f"{name!r} is missing" for name in sorted(needed - set(facts))]
    wrong += [f"{name!r} is unknown" for name in sorted(set(facts) - set(known))]
    if wrong:
        raise ConfigError(f"{where}: {', '.join(wrong)}.")
    return cls(**{name: _value(cls, name, value, f"{where}: {name}") for name, value in facts.items()})


def _value(cls: type, name: str, value: Any, where: str) -> Any:
    if (cls, name) in _LISTS:
        return tuple(_built(_LISTS[cls, name], each, f"{where} {place}") for place, each in enumerate(value))
    if (cls, name) in _ESTIMATES:
        return {key: _built(Estimate, each, f"{where} {key}") for key, each in value.items()}
    if (cls, name) == (CellResult, "spectrum") and value is not None:
        return _built(Spectrum, value, where)
    return tuple(value) if cls in (Spectrum, CellResult) and isinstance(value, list) else value


_LISTS: Mapping[tuple[type, str], type] = {
    (Results, "measures"): MeasureInfo,
    (Results, "cells"): CellResult,
    (Results, "comparisons"): Comparison,
}
_ESTIMATES = {(Results, "floor"), (CellResult, "measures")}


def _problems(results: Results) -> list[str]:
    keys = [each.key for each in results.measures]
    hashes = [each.hash for each in results.cells]
    found = [f"measure {key!r} stands twice" for key in sorted({k for k in keys if keys.count(k) > 1})]
    found += [f"cell {name!r} stands twice" for name in sorted({h for h in hashes if hashes.count(h) > 1})]
    if results.baseline is not None and results.baseline not in hashes:
        found.append(f"the baseline {results.baseline!r} is no cell")
    found += [f"the floor has an unknown measure {key!r}" for key in results.floor if key not in keys]
    for cell in results.cells:
        if cell.status not in STATUSES:
            found.append(f"{cell.label!r} has the status {cell.status!r}; known: {', '.join(STATUSES)}")
        found += [f"{cell.label!r} has an unknown measure {key!r}" for key in cell.measures if key not in keys]
    for each in results.comparisons:
        if each.measure not in keys or each.cell not in hashes or each.against not in hashes:
            found.append(f"a comparison of {each.cell!r} with {each.against!r} in {each.measure!r} names unknown ones")
    infinite = sorted(_infinite(asdict(results), ""))
    return found + [f"not finite: {', '.join(infinite[:6])}"] * bool(infinite)


def _infinite(value: Any, where: str) -> list[str]:
    """Places of numbers that are not finite."""
    if isinstance(value, Mapping):
        return [place for key, each in value.items() for place in _infinite(each, f"{where}.{key}".lstrip("."))]
    if isinstance(value, list | tuple):
        return [place for index, each in enumerate(value) for place in _infinite(each, f"{where}[{index}]")]
    return [where] if isinstance(value, float) and not math.isfinite(value) else []


def _plain(results: Results) -> dict[str, Any]:
    """As JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(asdict(results), allow_nan=False))

"""The configuration of an ablation: YAML, read whole, with every mistake and its line in one message."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hguide.errors import ConfigError, near_matches
from hguide.experiments.ablation.columns import COLUMNS, DEFAULT, REPEATS
from hguide.experiments.ablation.plain_values import is_listed, is_number, is_numbers, is_whole, plain
from hguide.experiments.ablation.yaml_lines import Place, Problems, read_yaml
from hguide.lists import seeds

__all__ = ["AXES", "Config", "ListedCell", "read_config"]

AXES = ("model", "guidance", "prior", "schedule", "strength", "sampler", "temperature")
"""What cells may differ in, in the order of the product."""

FILTERS = ("top_k", "top_p")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ListedCell:
    """A cell that is written by itself: its axes, and the name it is given."""

    place: Place
    label: str | None
    axes: Mapping[str, Any]


@dataclass(frozen=True)
class Config:
    """An ablation as it was asked for.

    Attributes:
        name: short; for file names.
        title: for the head of the report.
        description: a paragraph, or empty.
        axes: axis -> values, as written; axes that were not given are missing.
        places: axis -> where each of these values stands.
        cells: those listed by themselves.
        load: options of `hguide.load` for the models, for instance a text encoder.
        models: lender -> model, for guidances that ask for streams of another model.
        negative: class or prompt in place of the null condition.
        classes: names or numbers, None for all of the model.
        prompts: for text models, in place of classes.
        seeds: one image of each per cell; none where they were refused.
        seeds_text: as written.
        block: seeds sampled together; block i holds the seeds from i * block.
        deterministic: one image per network call.
        dtype: of the network.
        baseline: label or place of the cell that the others are compared with.
        reference: "bundled", a file of `hguide train reference`, or an `.npz` of pictures.
        features: weights of the feature network, None for the bundled ones.
        repeat_features: SqueezeNet weights, for a second network.
        measures: keys of `COLUMNS`.
        replicates: of the bootstrap.
        threads: per process on a CPU.
        labels: names of the cells, one each, or label -> name.
        source: the configuration as read.
        problems: where further mistakes are noted; knows the lines.
        where: file, for messages.
    """

    name: str
    title: str
    description: str
    axes: Mapping[str, tuple[Any, ...]]
    places: Mapping[str, tuple[Place, ...]]
    cells: tuple[ListedCell, ...]
    load: Mapping[str, Any]
    models: Mapping[str, str]
    negative: int | str | None
    classes: Any
    prompts: Any
    seeds: tuple[int, ...]
    seeds_text: str
    block: int
    deterministic: bool
    dtype: str
    baseline: int | str
    reference: str
    features: str | None
    repeat_features: str | None
    measures: tuple[str, ...]
    replicates: int
    threads: int
    labels: tuple[str, ...] | Mapping[str, str]
    source: Mapping[str, Any]
    problems: Problems
    where: str

    @property
    def hash(self) -> str:
        """sha256 of the configuration as read."""
        return hashlib.sha256(json.dumps(self.source, sort_keys=True).encode()).hexdigest()


def read_config(path: str | Path) -> Config:
    """Read a configuration; mistakes are noted in its `problems`, for the caller to add to and raise.

    Args:
        path: of the YAML file.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or is no mapping.
    """
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {file}: {error}.") from error
    try:
        document = read_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    if not isinstance(document.value, dict):
        raise ConfigError(f"{file}: a configuration is a mapping with `name`, `guidance`, `seeds` and so on.")
    problems = Problems(document.lines)
    for place, line in document.repeated:
        problems.found.append((line, f"{place[-1]!r} is given twice."))
    return _Reader(document.value, problems).config(str(file))


class _Reader:
    """Takes entries one by one, notes what is wrong with them, and goes on with their defaults."""

    def __init__(self, value: dict[Any, Any], problems: Problems) -> None:
        self.value = value
        self.problems = problems

    def config(self, where: str) -> Config:
        known = {*Config.__dataclass_fields__, *AXES} - {"axes", "places", "seeds_text", "source", "problems", "where"}
        for key in self.value:
            if key not in known:
                self.problems.add((key,), f"unknown key {key!r}: {near_matches(str(key), known)}")
        name = self.text("name", Path(where).stem)
        if not re.fullmatch(r"[\w.-]+", name):
            self.problems.add(("name",), f"name is made of letters, digits, '.', '_' and '-', got {name!r}.")
        seeds, seeds_text = self.seeds()
        if self.value.get("classes") is not None and self.value.get("prompts") is not None:
            self.problems.add(("prompts",), "give classes or prompts, not both.")
        repeat = self.optional_text("repeat_features")
        axes = self.axes()
        return Config(
            name=name,
            title=self.text("title", name),
            description=self.text("description", ""),
            axes={axis: tuple(value for _, value in found) for axis, found in axes.items()},
            places={axis: tuple(place for place, _ in found) for axis, found in axes.items()},
            cells=self.cells(),
            load=plain(self.take("load", {}, lambda value: isinstance(value, dict), "a mapping of options")),
            models=self.models(),
            negative=self.take("negative", None, lambda value: isinstance(value, int | str), "a class or a prompt"),
            classes=self.take("classes", None, is_listed, "names, numbers or a range"),
            prompts=self.take("prompts", None, is_listed, "a list of texts, or a file"),
            seeds=seeds,
            seeds_text=seeds_text,
            block=self.whole("block", 32, 1),
            deterministic=self.take("deterministic", False, lambda value: isinstance(value, bool), "true or false"),
            dtype=self.word("dtype", "float32", DTYPES),
            baseline=self.take(
                "baseline", 0, lambda v: is_whole(v) or isinstance(v, str), "a label, or a number from 0"
            ),
            reference=self.text("reference", "bundled"),
            features=self.optional_text("features"),
            repeat_features=repeat,
            measures=self.measures(repeat),
            replicates=self.whole("replicates", 1000, 2),
            threads=self.whole("threads", 1, 1),
            labels=self.labels(),
            source=plain(self.value),
            problems=self.problems,
            where=where,
        )

    def take(self, key: str, default: Any, right: Callable[[Any], bool], wanted: str) -> Any:
        value = self.value.get(key)
        if value is None:
            return default
        if not right(value):
            self.problems.add((key,), f"{key} is {wanted}, got {value!r}.")
            return default
        return value

    def text(self, key: str, default: str) -> str:
        return str(self.take(key, default, lambda v: isinstance(v, str | int | float), "a text")).strip()

    def optional_text(self, key: str) -> str | None:
        return self.take(key, None, lambda value: isinstance(value, str), "a path")

    def whole(self, key: str, default: int, least: int) -> int:
        return self.take(key, default, lambda v: is_whole(v) and v >= least, f"a whole number from {least}")

    def word(self, key: str, default: str, known: Sequence[str]) -> str:
        value = self.text(key, default)
        if value not in known:
            self.problems.add((key,), f"unknown {key} {value!r}: {near_matches(value, known)}")
            return default
        return value

    def seeds(self) -> tuple[tuple[int, ...], str]:
        value = self.value.get("seeds")
        if value is None:
            self.problems.add(("seeds",), "seeds is missing: give the seeds of each cell, for instance seeds: 0-511.")
            return (), ""
        if not is_listed(value):
            self.problems.add(("seeds",), f"seeds is a range, a file or a list of whole numbers, got {value!r}.")
            return (), ""
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        try:
            return tuple(seeds(value)), text
        except ConfigError as error:
            self.problems.add(("seeds",), str(error))
            return (), ""

    def measures(self, repeat: str | None) -> tuple[str, ...]:
        default = (*DEFAULT, *(REPEATS if repeat is not None else ()))
        asked = self.take("measures", list(default), lambda v: isinstance(v, list) and bool(v), "a list of measures")
        for index, key in enumerate(asked):
            if key not in COLUMNS:
                self.problems.add(("measures", index), f"unknown measure {key!r}: {near_matches(str(key), COLUMNS)}")
            elif key in REPEATS and repeat is None:
                self.problems.add(
                    ("measures", index), f"{key} needs repeat_features: the path of SqueezeNet's weights."
                )
        return tuple(key for key in COLUMNS if key in asked)

    def models(self) -> dict[str, str]:
        asked = self.take("models", {}, lambda value: isinstance(value, dict), "a mapping of lenders, as weak: MODEL")
        for name, path in asked.items():
            if name == "main":
                self.problems.add(("models", name), "'main' is a cell's own model; give its lenders other names.")
            if not isinstance(path, str):
                self.problems.add(("models", name), f"a lender is a name, file, folder or hub id, got {path!r}.")
        return {str(name): path for name, path in asked.items() if isinstance(path, str)}

    def labels(self) -> tuple[str, ...] | Mapping[str, str]:
        value = self.value.get("labels")
        if isinstance(value, dict):
            return {str(key): str(each) for key, each in value.items()}
        return tuple(map(str, self.take("labels", [], lambda v: isinstance(v, list), "a list, or label: name")))

    def axes(self) -> dict[str, list[tuple[Place, Any]]]:
        """Axis -> its values of the right form, each with its place."""
        found = {}
        for axis in AXES:
            given = self.value.get(axis)
            if given is None:
                continue
            if given == []:
                self.problems.add((axis,), f"{axis} is an empty list.")
            placed: list[tuple[Place, Any]] = [((axis,), given)]
            if isinstance(given, list):
                placed = [((axis, index), value) for index, value in enumerate(given)]
            found[axis] = [(place, value) for place, value in placed if self.axis_value(axis, value, place)]
        return found

    def axis_value(self, axis: str, value: Any, place: Place) -> bool:
        """Whether a value of an axis has the right form; what it says is read with the cells."""
        if axis == "sampler":
            return self.filters(value, place)
        wanted = "a text"
        right = isinstance(value, str)
        if axis == "strength":
            right, wanted = right or is_number(value), "a number, a schedule as text or a list as text"
        if axis == "temperature":
            numbers = isinstance(value, list) and bool(value) and all(map(is_number, value))
            right = right or is_number(value) or numbers
            wanted = "a number, a list with one per step, a schedule or entropy(...) as text"
        if not right:
            self.problems.add(place, f"{axis} is {wanted}, got {value!r}.")
        return right

    def filters(self, value: Any, place: Place) -> bool:
        if not isinstance(value, dict):
            self.problems.add(place, f"sampler is a mapping of {' and '.join(FILTERS)}, got {value!r}.")
            return False
        before = len(self.problems.found)
        for key, each in value.items():
            if key not in FILTERS:
                more = " (it is an axis of its own)" if key == "temperature" else ""
                self.problems.add(
                    (*place, key), f"unknown key {key!r} of sampler{more}: {near_matches(str(key), FILTERS)}"
                )
            elif not (is_number(each) or isinstance(each, str) or is_numbers(each)):
                self.problems.add((*place, key), f"{key} is a number, one per step or a schedule, got {each!r}.")
        return len(self.problems.found) == before

    def cells(self) -> tuple[ListedCell, ...]:
        listed = self.take("cells", [], lambda v: isinstance(v, list), "a list of mappings")
        found = []
        for index, value in enumerate(listed):
            place: Place = ("cells", index)
            if not isinstance(value, dict):
                self.problems.add(place, f"a cell is a mapping of label and axes, got {value!r}.")
                continue
            axes = {}
            for key, each in value.items():
                if key not in (*AXES, "label"):
                    near = near_matches(str(key), (*AXES, "label"))
                    self.problems.add((*place, key), f"unknown key {key!r} of a cell: {near}")
                elif key != "label" and self.axis_value(key, each, (*place, key)):
                    axes[key] = each
            label = value.get("label")
            found.append(ListedCell(place, None if label is None else str(label), axes))
        return tuple(found)

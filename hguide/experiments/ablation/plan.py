"""From cells to what is to be done: models loaded, hashes known, and what cannot be served found before it is tried."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from hguide.backends.hub import HUB_ID, OFFICIAL_FILES, WEIGHTS
from hguide.errors import CheckpointError, HGuideError
from hguide.experiments.ablation.cells import Cell
from hguide.experiments.ablation.config import Config
from hguide.experiments.ablation.settings import models_named, read_settings
from hguide.experiments.ablation.yaml_lines import Place
from hguide.generator import Categorical, ScaleGenerator
from hguide.grids import Step
from hguide.lists import conditions
from hguide.plan import asked_models, plan
from hguide.provenance import model_hash
from hguide.streams import COND
from hguide.temperature import EntropyTemperature

__all__ = ["HASH_DIGITS", "Models", "PlannedCell", "block_seeds", "labels_of", "plan_cells"]

SCHEMA = "hguide.cell/1"
HASH_DIGITS = 12


@dataclass(eq=False)
class Models:
    """Generators by name; one and its lenders are in memory at a time, since cells of one model stand together.

    Attributes:
        device: where they compute.
        dtype: of the networks.
        options: of `hguide.load` for the models, not for their lenders.
    """

    device: torch.device
    dtype: torch.dtype
    options: Mapping[str, Any] = field(default_factory=dict)
    _name: str | None = None
    _generator: ScaleGenerator | None = None
    _lenders: dict[str, ScaleGenerator] = field(default_factory=dict)
    _hashes: dict[str, str] = field(default_factory=dict)

    def get(self, name: str) -> ScaleGenerator:
        """The generator.

        Raises:
            CheckpointError: there is none of that name.
        """
        if self._name != name or self._generator is None:
            self._generator = None
            self._lenders.clear()
            self._generator, self._name = self._load(name, self.options), name
        return self._generator

    def lenders(self, model: str, paths: Mapping[str, str]) -> dict[str, ScaleGenerator]:
        """The lenders of a model, by the names that guidances use; one of the same path is the model itself.

        Args:
            model: that they lend to.
            paths: name -> bundled name, file, folder or hub id.

        Raises:
            CheckpointError: one cannot be loaded; names it.
        """
        main = self.get(model)
        for name, path in paths.items():
            if path != model and path not in self._lenders:
                try:
                    self._lenders[path] = self._load(path, {})
                except CheckpointError as error:
                    raise CheckpointError(f"lender {name!r}: {error}") from error
        return {name: main if path == model else self._lenders[path] for name, path in paths.items()}

    def hash(self, name: str, generator: ScaleGenerator) -> str:
        """Of the weights of the generator of that name."""
        if name not in self._hashes:
            self._hashes[name] = model_hash(generator)
        return self._hashes[name]

    def _load(self, name: str, options: Mapping[str, Any]) -> ScaleGenerator:
        from hguide.load import load

        return load(name, device=self.device, dtype=self.dtype, **options)


@dataclass(frozen=True, eq=False)
class PlannedCell:
    """A cell whose model is known.

    Attributes:
        cell: as configured.
        hash: first digits of the sha256 of `facts`.
        facts: everything that an image of the cell follows from, besides its seed.
        model_hash: of the weights.
        conditions: seed s has conditions[s mod their number].
        class_names: of the model.
        lenders: name -> path of the models that lend streams to its guidance.
        streams: the largest number of streams at a step; None where they are refused.
        error: why the cell cannot run, where that is known already.
        meanings: of the cell, and of those that proved to be the same once their models were loaded.
    """

    cell: Cell
    hash: str
    facts: Mapping[str, Any]
    model_hash: str
    conditions: tuple[Any, ...]
    class_names: tuple[str, ...]
    lenders: Mapping[str, str]
    streams: int | None
    error: str | None
    meanings: tuple[tuple[str, str, str], ...]

    def condition(self, seed: int) -> Any:
        """The condition of a seed."""
        return self.conditions[seed % len(self.conditions)]


def plan_cells(config: Config, cells: Sequence[Cell], models: Models, device: str) -> tuple[PlannedCell, ...]:
    """Load each model, find the conditions, hash each cell and ask its model whether it serves the guidance.

    A model that cannot be loaded and classes that it does not know are noted in `config.problems`, those of models that
    only cells with other mistakes name too; what a guidance asks for and the model does not serve is the `error` of its
    cell. Where there are mistakes already, no model is fetched from a hub.

    Args:
        config: as read.
        cells: of the configuration.
        models: where generators come from.
        device: kind of device that will sample; another makes other last bits.
    """
    planned: dict[int, PlannedCell] = {}
    for model, places in models_named(config).items():
        if config.problems.found and _is_far(model):
            continue
        given = _conditions(config, model, places, models)
        for index, cell in enumerate(cells):
            if given is not None and cell.model == model:
                found = _planned(config, cell, models, given, device)
                planned |= {} if found is None else {index: found}
    if len(planned) == len(cells) and not read_settings(config)[1]:
        _check_idle(config, planned.values())
    merged: dict[str, PlannedCell] = {}
    for _, each in sorted(planned.items()):
        twin = merged.get(each.hash)
        merged[each.hash] = each if twin is None else replace(twin, meanings=(*twin.meanings, *each.meanings))
    return tuple(merged.values())


def _is_far(model: str) -> bool:
    """Whether a model would have to be fetched: not for the sake of a configuration that cannot run."""
    on_hub = bool(HUB_ID.fullmatch(model)) and not model.endswith(WEIGHTS)
    return (model in OFFICIAL_FILES or on_hub) and not Path(model).exists()


def _conditions(config: Config, model: str, places: Sequence[Place], models: Models) -> tuple[Any, ...] | None:
    """What the seeds stand for; None where there is no such model or it does not know them, which is noted."""
    try:
        generator = models.get(model)
    except HGuideError as error:
        for place in places:
            config.problems.add(place, f"model {model!r}: {str(error).removeprefix(f'{model}: ')}")
        return None
    written = {key: getattr(config, key) for key in ("classes", "prompts") if config.source.get(key) is not None}
    if len(written) > 1 or None in written.values():
        # Both, or one that was refused: noted when the configuration was read.
        return None
    try:
        return tuple(conditions(generator, config.classes, config.prompts))
    except HGuideError as error:
        key, given = next(iter(written.items()), ("classes", None))
        wrong = [] if not isinstance(given, list) else _wrong_entries(generator, key, given)
        for place, problem in wrong or [((key,), error)]:
            text = str(problem)
            config.problems.add(place, text if text.startswith(f"{model}: ") else f"{model}: {text}")
        return None


def _wrong_entries(generator: ScaleGenerator, key: str, given: Sequence[Any]) -> list[tuple[Place, HGuideError]]:
    """The entries of a list that the generator refuses by themselves."""
    found: list[tuple[Place, HGuideError]] = []
    for index, each in enumerate(given):
        try:
            conditions(generator, **{"classes": None, key: [each]})
        except HGuideError as error:
            found.append(((key, index), error))
    return found


def _planned(config: Config, cell: Cell, models: Models, given: tuple[Any, ...], device: str) -> PlannedCell | None:
    """A cell, or None where a lender cannot be loaded, which is noted, or would be fetched in vain."""
    generator = models.get(cell.model)
    asked = asked_models(generator, cell.guidance)
    paths = {name: path for name, path in config.models.items() if name in asked}
    lenders: dict[str, ScaleGenerator] = {}
    for name, path in paths.items():
        if config.problems.found and _is_far(path):
            continue
        try:
            lenders |= models.lenders(cell.model, {name: path})
        except HGuideError as error:
            config.problems.add(("models", name), str(error))
    if len(lenders) < len(paths):
        return None
    facts = {
        "schema": SCHEMA,
        "model_hash": models.hash(cell.model, generator),
        "guidance": str(cell.guidance),
        "sampler": cell.sampler_facts,
        "conditions": list(given),
        "negative": config.negative,
        "block": config.block,
        "deterministic": config.deterministic,
        "device": device,
    }
    if config.load:
        facts["load"] = dict(config.load)
    if paths:
        facts["models"] = {name: models.hash(path, lenders[name]) for name, path in sorted(paths.items())}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]
    streams, refusal = _served(generator, cell, config.negative, lenders)
    return PlannedCell(
        cell,
        digest,
        facts,
        str(facts["model_hash"]),
        given,
        tuple(generator.class_names),
        paths,
        streams,
        refusal,
        (cell.meaning,),
    )


def _check_idle(config: Config, cells: Collection[PlannedCell]) -> None:
    """Lenders that no cell asks for: a name mistyped here or in a guidance."""
    used = {name for planned in cells for name in planned.lenders}
    for name in config.models:
        if name not in used and cells:
            config.problems.add(
                ("models", name), f"no guidance asks for the lender {name!r}; autoguidance(model={name}) does."
            )


def _served(
    generator: ScaleGenerator, cell: Cell, negative: Any, lenders: Mapping[str, ScaleGenerator]
) -> tuple[int | None, str | None]:
    """Streams per step, or why there is no first step."""
    try:
        if negative is not None:
            generator.conditions(negative, 1)
        plan(generator, cell.guidance, negative=negative, models=lenders)
        steps = [Step(k, generator.count, 0, scale) for k, scale in enumerate(generator.scales)]
        size = generator.channels.size if isinstance(generator.channels, Categorical) else None
        free = isinstance(cell.sampler.temperature, EntropyTemperature) and size is not None
        for step in steps:
            for name in ("top_k", "top_p") if free else ("top_k", "top_p", "temperature"):
                value = cell.sampler.at(name, step)
                if name == "top_k" and size is not None and value > size:
                    return None, f"top_k is {value:g} at step {step.index}, but there are {size} tokens."
        return max(len(cell.guidance.asks(COND, step)) for step in steps), None
    except HGuideError as error:
        return None, " ".join(str(error).split())


def block_seeds(seeds: Sequence[int], block: int) -> list[tuple[int, ...]]:
    """The whole blocks that hold the seeds: block i is the seeds from i * block.

    A block is always sampled whole, so that the image of a seed is the same whichever other seeds are asked for.

    >>> block_seeds([3, 4, 9], 4)
    [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    """
    return [tuple(range(i * block, (i + 1) * block)) for i in sorted({seed // block for seed in seeds})]


def labels_of(planned: PlannedCell, classes: Sequence[str], seeds: Sequence[int]) -> list[int] | None:
    """The classifier's class of each seed; None where the conditions are not its classes.

    Args:
        planned: whose conditions are meant.
        classes: names, in the order of the classifier.
        seeds: of the images.
    """
    given = [planned.condition(seed) for seed in seeds]
    if all(isinstance(each, int) for each in given):
        known = planned.class_names == tuple(classes) and all(0 <= each < len(classes) for each in given)
        return given if known else None
    return [list(classes).index(each) for each in given] if all(each in classes for each in given) else None

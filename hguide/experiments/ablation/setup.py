"""Everything an ablation needs, ready or refused: cells, models, networks, reference, seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hguide.errors import CheckpointError, ConfigError, HGuideError
from hguide.experiments.ablation.cells import baseline_of, read_cells, varied_axes
from hguide.experiments.ablation.config import Config, read_config
from hguide.experiments.ablation.plan import Models, PlannedCell, block_seeds, labels_of, plan_cells
from hguide.experiments.extractors import Extractor, LanduseExtractor, SqueezeNetExtractor
from hguide.experiments.measures.precision_recall import NEIGHBOURS
from hguide.experiments.reference import Crops, Reference, for_networks, load_reference, reference_of_images

__all__ = ["Setup", "prepare"]

LEAST_IMAGES = NEIGHBOURS + 1


@dataclass(frozen=True, eq=False)
class Setup:
    """An ablation, ready to run.

    Attributes:
        config: as read.
        cells: in the order of the table.
        baseline: the cell that the others are compared with.
        varied: axes that differ.
        seeds: of each cell, in order.
        seeds_text: as written, with the limit.
        blocks: whole blocks that hold the seeds.
        models: on the CPU, for planning.
        extractors: "landuse" and, for the repeat, "squeezenet".
        landuse: the first of them, the classifier.
        reference: what samples are compared with.
        measures: keys of the columns.
    """

    config: Config
    cells: tuple[PlannedCell, ...]
    baseline: PlannedCell
    varied: tuple[str, ...]
    seeds: tuple[int, ...]
    seeds_text: str
    blocks: tuple[tuple[int, ...], ...]
    models: Models
    extractors: Mapping[str, Extractor]
    landuse: LanduseExtractor
    reference: Reference
    measures: tuple[str, ...]

    def labels(self, planned: PlannedCell) -> torch.Tensor | None:
        """The classifier's class of each seed, where the cell's conditions are its classes."""
        found = labels_of(planned, self.landuse.classes, self.seeds)
        return None if found is None else torch.tensor(found)

    def real(self, planned: PlannedCell) -> Crops:
        """The reference crops that a cell is compared with: as many of each class as it has images."""
        return self.reference.train.spread(len(self.seeds), self.labels(planned))


def prepare(path: str | Path, *, limit: int | None = None, device: str = "cpu") -> Setup:
    """Read the configuration, load models, networks and reference, and refuse all mistakes in one message.

    Args:
        path: of the YAML file.
        limit: only so many of the seeds.
        device: kind of device that will sample.

    Raises:
        ConfigError: the list of mistakes, each with its line.
    """
    config = read_config(path)
    cells = read_cells(config)
    baseline = baseline_of(config, cells) if cells else None
    config.problems.raise_any(config.where)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is at least 1, got {limit}.")
    # Planned on the CPU: only the processes that sample shall fill a device. A hash is that of the bytes.
    models = Models(torch.device("cpu"), getattr(torch, config.dtype), config.load)
    planned = plan_cells(config, cells, models, device)
    extractors, landuse = _extractors(config)
    reference = _reference(config, extractors)
    config.problems.raise_any(config.where)
    assert baseline is not None
    assert landuse is not None
    assert reference is not None
    seeds = config.seeds[:limit]
    setup = Setup(
        config=config,
        cells=planned,
        baseline=next(each for each in planned if baseline.meaning in each.meanings),
        varied=varied_axes(cells),
        seeds=seeds,
        seeds_text=config.seeds_text if len(seeds) == len(config.seeds) else f"{config.seeds_text}, first {len(seeds)}",
        blocks=tuple(block_seeds(seeds, config.block)),
        models=models,
        extractors=extractors,
        landuse=landuse,
        reference=reference,
        measures=config.measures,
    )
    checked = replace(setup, measures=_possible_measures(setup))
    _check_counts(checked)
    config.problems.raise_any(config.where)
    return checked


def _extractors(config: Config) -> tuple[dict[str, Extractor], LanduseExtractor | None]:
    found: dict[str, Extractor] = {}
    try:
        landuse = LanduseExtractor.load(config.features)
    except HGuideError as error:
        config.problems.add(("features",), str(error))
        return found, None
    found["landuse"] = landuse
    if config.repeat_features is not None:
        try:
            projection = load_reference(_reference_file(config)).projection
            if projection is None:
                raise CheckpointError("the reference was computed without --squeezenet, so that a repeat has no axes.")
            found["squeezenet"] = SqueezeNetExtractor.load(Path(config.repeat_features).expanduser(), projection)
        except (HGuideError, RuntimeError) as error:
            config.problems.add(("repeat_features",), f"{config.repeat_features}: {error}")
    return found, landuse


def _reference_file(config: Config) -> str | None:
    """A reference of ours, None for the bundled one, which also gives pictures of your own their axes."""
    return config.reference if config.reference.endswith(".safetensors") else None


def _reference(config: Config, extractors: Mapping[str, Extractor]) -> Reference | None:
    if "landuse" not in extractors or (config.repeat_features is not None and "squeezenet" not in extractors):
        return None
    try:
        if config.reference.endswith(".npz"):
            return reference_of_images(config.reference, extractors)
        if config.reference != "bundled" and _reference_file(config) is None:
            raise ConfigError(f"reference is bundled, a .safetensors or an .npz file, got {config.reference!r}.")
        squeezenet = extractors["squeezenet"].hash if "squeezenet" in extractors else None
        return for_networks(load_reference(_reference_file(config)), extractors["landuse"].hash, squeezenet)
    except HGuideError as error:
        config.problems.add(("reference",), str(error))
        return None


def _possible_measures(setup: Setup) -> tuple[str, ...]:
    """The measures asked for; accuracy only where the classifier knows the classes of some cell."""
    if any(setup.labels(each) is not None for each in setup.cells) or "accuracy" not in setup.measures:
        return setup.measures
    if isinstance(setup.config.source.get("measures"), list):
        setup.config.problems.add(("measures",), "accuracy: the classes of no model are those of the classifier.")
    return tuple(key for key in setup.measures if key != "accuracy")


def _check_counts(setup: Setup) -> None:
    """Equal counts of samples and real crops."""
    if len(setup.seeds) < LEAST_IMAGES:
        setup.config.problems.add(("seeds",), f"measures need at least {LEAST_IMAGES} images, got {len(setup.seeds)}.")
        return
    for planned in setup.cells:
        try:
            setup.real(planned)
        except ConfigError as error:
            setup.config.problems.add(("seeds",), str(error))

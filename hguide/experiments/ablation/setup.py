"""Everything an ablation needs, ready or refused: cells, models, networks, reference, seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int

from hguide.errors import CheckpointError, ConfigError, HGuideError
from hguide.experiments.ablation.cells import baseline_of, read_cells, varied_axes
from hguide.experiments.ablation.config import Config, read_config
from hguide.experiments.ablation.plan import Models, PlannedCell, block_seeds, labels_of, plan_cells
from hguide.experiments.ablation.settings import models_named
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
        return _labels(planned, self.landuse, self.seeds)

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
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is at least 1, got {limit}.")
    config = read_config(path)
    cells = read_cells(config)
    baseline = baseline_of(config, cells)
    # Planned on the CPU: only the processes that sample shall fill a device. A hash is that of the bytes.
    models = Models(torch.device("cpu"), getattr(torch, config.dtype), config.load)
    planned = plan_cells(config, cells, models, device)
    seeds = config.seeds[:limit]
    source = _source(config)
    extractors, landuse = _extractors(config, source)
    _check_counts(config, planned, seeds, _counted(config, source, extractors), landuse)
    measures = _possible_measures(config, planned, seeds, landuse)
    config.problems.raise_any(config.where)
    reference = _reference(config, source, extractors)
    config.problems.raise_any(config.where)
    assert baseline is not None
    assert landuse is not None
    assert reference is not None
    return Setup(
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
        measures=measures,
    )


def _is_pictures(config: Config) -> bool:
    return config.reference.endswith(".npz")


def _source(config: Config) -> Reference | None:
    """The reference as it is stored; the bundled one has the axes of a repeat on pictures of your own too."""
    own = config.reference.endswith(".safetensors")
    try:
        if not own and not _is_pictures(config) and config.reference != "bundled":
            raise ConfigError(f"reference is bundled, a .safetensors or an .npz file, got {config.reference!r}.")
        return load_reference(config.reference if own else None)
    except HGuideError as error:
        config.problems.add(("reference",), str(error))
        return None


def _extractors(config: Config, source: Reference | None) -> tuple[dict[str, Extractor], LanduseExtractor | None]:
    found: dict[str, Extractor] = {}
    landuse = None
    try:
        landuse = found["landuse"] = LanduseExtractor.load(config.features)
    except HGuideError as error:
        config.problems.add(("features",), str(error))
    if config.repeat_features is not None and source is not None:
        try:
            if source.projection is None:
                raise CheckpointError("the reference was computed without --squeezenet, so that a repeat has no axes.")
            weights = Path(config.repeat_features).expanduser()
            found["squeezenet"] = SqueezeNetExtractor.load(weights, source.projection)
        except (HGuideError, RuntimeError) as error:
            text = str(error)
            named = text if config.repeat_features in text else f"{config.repeat_features}: {text}"
            config.problems.add(("repeat_features",), named)
    return found, landuse


def _counted(config: Config, source: Reference | None, extractors: Mapping[str, Extractor]) -> Reference | None:
    """A reference to count crops of: of pictures without their features, which take time; else the whole."""
    return _reference(config, source, {} if _is_pictures(config) else extractors)


def _reference(config: Config, source: Reference | None, extractors: Mapping[str, Extractor]) -> Reference | None:
    """What samples are compared with, of the networks in use; None where it cannot be read, which is noted."""
    try:
        if _is_pictures(config):
            return reference_of_images(config.reference, extractors)
        if source is None or "landuse" not in extractors:
            return source
        squeezenet = extractors["squeezenet"].hash if "squeezenet" in extractors else None
        return for_networks(source, extractors["landuse"].hash, squeezenet)
    except HGuideError as error:
        config.problems.add(("reference",), str(error))
        return None


def _labels(
    planned: PlannedCell, landuse: LanduseExtractor | None, seeds: Sequence[int]
) -> Int[torch.Tensor, " seeds"] | None:
    found = None if landuse is None else labels_of(planned, landuse.classes, seeds)
    return None if found is None else torch.tensor(found, dtype=torch.long)


def _possible_measures(
    config: Config, cells: Sequence[PlannedCell], seeds: Sequence[int], landuse: LanduseExtractor | None
) -> tuple[str, ...]:
    """The measures asked for; accuracy only where the classifier knows the classes of some cell."""
    # Where the seeds were refused, each condition once stands for them.
    labels = [_labels(each, landuse, seeds or range(len(each.conditions))) for each in cells]
    if any(each is not None for each in labels) or "accuracy" not in config.measures:
        return config.measures
    known = landuse is not None and {each.cell.model for each in cells} == set(models_named(config))
    if known and isinstance(config.source.get("measures"), list):
        config.problems.add(("measures",), "accuracy: the classes of no model are those of the classifier.")
    return tuple(key for key in config.measures if key != "accuracy")


def _check_counts(
    config: Config,
    cells: Sequence[PlannedCell],
    seeds: Sequence[int],
    reference: Reference | None,
    landuse: LanduseExtractor | None,
) -> None:
    """Equal counts of samples and real crops; seeds that were refused are none."""
    if 0 < len(seeds) < LEAST_IMAGES:
        config.problems.add(("seeds",), f"measures need at least {LEAST_IMAGES} images, got {len(seeds)}.")
    elif seeds and reference is not None and landuse is not None:
        for planned in cells:
            try:
                reference.train.spread(len(seeds), _labels(planned, landuse, seeds))
            except ConfigError as error:
                config.problems.add(("seeds",), str(error))

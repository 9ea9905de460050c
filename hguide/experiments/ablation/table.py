"""From stored blocks to results: the rows of the table, its floor, and the differences from the baseline."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hguide.errors import ConfigError
from hguide.experiments.ablation.columns import COLUMNS
from hguide.experiments.ablation.measure import Measured, Sample, compared, measure, spectrum
from hguide.experiments.ablation.plan import PlannedCell
from hguide.experiments.ablation.provenance import classes_facts
from hguide.experiments.ablation.results import CellResult, Comparison, Estimate, Results
from hguide.experiments.ablation.setup import Setup
from hguide.experiments.ablation.store import Block, Store
from hguide.experiments.ablation.work import Failure, one_line, stored_features
from hguide.experiments.extractors import joined
from hguide.experiments.measures.clusters import Clusters
from hguide.experiments.reference import Crops

__all__ = ["results_of"]


@dataclass(frozen=True, eq=False)
class _Row:
    """A cell and what differences are made of."""

    result: CellResult
    measured: Mapping[str, Measured]
    labels: torch.Tensor | None
    clusters: Clusters


def results_of(setup: Setup, store: Store, failures: Sequence[Failure], facts: Mapping[str, Any]) -> Results:
    """Measure every cell that was sampled.

    Args:
        setup: of the run.
        store: has the blocks.
        failures: of cells that were not.
        facts: provenance.
    """
    from tqdm import tqdm

    errors = {failure.cell: failure.error for failure in failures}
    rows = []
    for place, planned in enumerate(tqdm(setup.cells, unit="cell", desc="measuring", file=sys.stderr)):
        rows.append(_row(setup, store, planned, errors.get(place)))
    return Results(
        name=setup.config.name,
        title=setup.config.title,
        description=setup.config.description,
        config=setup.config.source,
        config_hash=setup.config.hash,
        provenance=facts,
        seeds={
            "first": setup.seeds[0],
            "count": len(setup.seeds),
            "text": setup.seeds_text,
            "listed": list(setup.seeds),
        },
        classes=classes_facts(setup.baseline),
        measures=tuple(COLUMNS[key] for key in setup.measures),
        cells=tuple(row.result for row in rows),
        baseline=setup.baseline.hash,
        floor=_floor(setup, store),
        comparisons=tuple(_comparisons(setup, rows)),
    )


def _row(setup: Setup, store: Store, planned: PlannedCell, error: str | None) -> _Row:
    labels = setup.labels(planned)
    measured: dict[str, Measured] = {}
    facts: dict[str, Any] = {}
    if error is None:
        try:
            blocks = _blocks(setup, store, planned)
            sample, real = _sample(setup, store, planned, blocks), setup.real(planned)
            for key in setup.measures:
                if key != "accuracy" or labels is not None:
                    folder = store.cell(planned.hash) / "measures"
                    measured[key] = measure(key, sample, real, replicates=setup.config.replicates, folder=folder)
            facts = {"spectrum": spectrum(sample, real), **_costs(blocks)}
        except Exception as failure:
            # As in sampling: one cell that cannot be measured leaves the others.
            error, measured = one_line(failure), {}
    result = CellResult(
        hash=planned.hash,
        label=planned.cell.label,
        axes=planned.cell.axes,
        varied=setup.varied,
        guidance=str(planned.cell.guidance),
        model_hash=planned.model_hash,
        status="done" if error is None else "failed",
        error=error,
        count=len(setup.seeds) if error is None else 0,
        measures={key: each.estimate for key, each in measured.items()},
        streams=planned.streams,
        **facts,
    )
    return _Row(result, measured, labels, _seed_clusters(setup, planned))


def _blocks(setup: Setup, store: Store, planned: PlannedCell) -> list[Block]:
    found = [store.read_block(planned.hash, seeds[0]) for seeds in setup.blocks]
    missing = sum(block is None for block in found)
    if missing:
        raise ConfigError(f"{missing} of {len(found)} blocks are not there: was a file removed? Run it again.")
    return [block for block in found if block is not None]


def _sample(setup: Setup, store: Store, planned: PlannedCell, blocks: Sequence[Block]) -> Sample:
    """Rows in the order of the seeds."""
    places = {seed: place for place, seed in enumerate(seed for block in blocks for seed in block.seeds)}
    chosen = np.array([places[seed] for seed in setup.seeds])
    arrays: dict[str, torch.Tensor] = {}
    for name, extractor in setup.extractors.items():
        parts = []
        for block in blocks:
            found = stored_features(store, planned.hash, block, extractor)
            if found is None:
                raise ConfigError(f"features of the block from seed {block.seeds[0]} are not there: run it again.")
            parts.append(found)
        rows = {key: torch.from_numpy(value[chosen]) for key, value in joined(parts).items()}
        arrays |= rows if name == "landuse" else {name: rows["features"]}
    return Sample(arrays, _seed_clusters(setup, planned), setup.labels(planned))


def _seed_clusters(setup: Setup, planned: PlannedCell) -> Clusters:
    """Each seed by itself, the classes keeping their shares where each has two seeds."""
    strata = [seed % len(planned.conditions) for seed in setup.seeds]
    if min(strata.count(each) for each in set(strata)) < 2:
        return Clusters.of(setup.seeds)
    return Clusters.of(setup.seeds, strata)


def _costs(blocks: Sequence[Block]) -> dict[str, Any]:
    memory = [block.peak_memory_mb for block in blocks if block.peak_memory_mb is not None]
    return {
        "seconds_per_image": sum(block.seconds for block in blocks) / sum(len(block.seeds) for block in blocks),
        "peak_memory_mb": max(memory, default=None),
        "network_calls": blocks[0].network_calls,
    }


def _floor(setup: Setup, store: Store) -> dict[str, Estimate]:
    """Test crops in the place of samples, against the crops that samples are compared with."""
    test = setup.reference.test
    if test is None:
        return {}
    try:
        crops = test.spread(len(setup.seeds), setup.labels(setup.baseline))
    except ConfigError:
        # More samples than test crops: no floor at this count.
        return {}
    real = setup.real(setup.baseline)
    sample = Sample(_with_logits(setup, crops), crops.clusters(), crops.labels)
    found = {}
    for key in setup.measures:
        if key != "accuracy" or crops.labels is not None:
            folder = store.folder / "floor"
            found[key] = measure(key, sample, real, replicates=setup.config.replicates, folder=folder).estimate
    return found


@torch.no_grad()
def _with_logits(setup: Setup, crops: Crops) -> dict[str, torch.Tensor]:
    """The class scores are linear in the features."""
    return {**crops.arrays, "logits": setup.landuse.network.head(crops.arrays["features"])}


def _comparisons(setup: Setup, rows: Sequence[_Row]) -> list[Comparison]:
    base = next(row for row in rows if row.result.hash == setup.baseline.hash)
    found = []
    for row in rows:
        if row is base or not _paired(row, base):
            continue
        for key in setup.measures:
            if key in row.measured and key in base.measured:
                mine, theirs = row.measured[key], base.measured[key]
                found.append(compared(key, row.result.hash, mine, base.result.hash, theirs))
    return found


def _paired(one: _Row, other: _Row) -> bool:
    """Whether two cells are compared with the same crops and resampled alike: not where models have other classes."""
    if one.clusters.strata != other.clusters.strata or (one.labels is None) != (other.labels is None):
        return False
    return one.labels is None or other.labels is None or torch.equal(one.labels, other.labels)

"""`hguide ablate`: sample what is missing, measure all, write results.json."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from hguide.experiments.ablation.distribute import Processes, launch, share
from hguide.experiments.ablation.estimate import dry_run_text, estimate
from hguide.experiments.ablation.plan import Models
from hguide.experiments.ablation.provenance import now, outcome, provenance, write_cell_notes
from hguide.experiments.ablation.results import Results
from hguide.experiments.ablation.setup import Setup, prepare
from hguide.experiments.ablation.store import Store
from hguide.experiments.ablation.table import results_of
from hguide.experiments.ablation.work import Failure, Unit, do_units, open_units

__all__ = ["Options", "ablate", "dry_run"]


@dataclass(frozen=True)
class Options:
    """Of a run.

    Attributes:
        config: YAML file.
        out: folder of the store and of results.json.
        limit: only so many of the seeds.
        device: that samples, "cpu" or "cuda".
        devices: processes per machine.
        num_nodes: machines.
        command: as typed, for the provenance.
    """

    config: Path
    out: Path
    limit: int | None
    device: torch.device
    devices: int = 1
    num_nodes: int = 1
    command: str = ""


def ablate(options: Options, note: Callable[[str], None]) -> Results | None:
    """Run an ablation; the same call goes on where an earlier one stopped.

    Args:
        options: of the run.
        note: takes lines for the user.

    Returns:
        The results, written to OUT/results.json; None on all processes but the first.

    Raises:
        ConfigError: the list of mistakes of the configuration.
    """
    started = now()
    setup = prepare(options.config, limit=options.limit, device=options.device.type)
    with threads(setup.config.threads):
        processes = launch(options.device, options.devices, options.num_nodes)
        store = Store(options.out)
        first = processes.rank == 0
        units: list[Unit] = []
        if first:
            write_cell_notes(store, setup)
            units = open_units(store, setup.cells, setup.blocks, setup.extractors, note)
        # What is open is looked up once: a process that looks later would see what others have done since.
        units = processes.from_first(units)
        failures = _work(setup, units, store, processes)
        processes.part()
        if not first:
            return None
        facts = provenance(setup, options.command, processes, started)
        results = results_of(setup, store, failures, facts)
        results.write(store.folder / "results.json")
        write_cell_notes(store, setup, {each.hash: outcome(each) for each in results.cells})
        return results


def dry_run(options: Options, note: Callable[[str], None]) -> tuple[str, bool]:
    """What a run would do and how long it would take, and whether all cells can run."""
    setup = prepare(options.config, limit=options.limit, device=options.device.type)
    with threads(setup.config.threads):
        store = Store(options.out)
        units = open_units(store, setup.cells, setup.blocks, setup.extractors, note)
        estimates = estimate(setup, units, store, options.device)
    text = dry_run_text(setup, estimates, options.devices * options.num_nodes)
    return text, all(each.error is None for each in estimates)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads: another number sums in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _work(setup: Setup, units: Sequence[Unit], store: Store, processes: Processes) -> list[Failure]:
    """Do this process's share; the first failure of each cell over all processes."""
    from tqdm import tqdm

    own = share(units, processes)
    same = processes.device.type == setup.models.device.type
    models = setup.models if same else Models(processes.device, setup.models.dtype, setup.models.options)
    waiting = "sampling" if processes.count == 1 else f"sampling on {processes.count} processes"
    with tqdm(total=len(own), unit="block", desc=waiting, file=sys.stderr, disable=processes.rank > 0) as progress:
        found = do_units(
            own,
            setup.cells,
            models,
            store,
            setup.extractors,
            deterministic=setup.config.deterministic,
            size=setup.reference.size,
            done=progress.update,
        )
    known = [Failure(i, -1, each.error) for i, each in enumerate(setup.cells) if each.error is not None]
    every = sorted([*known, *(each for part in processes.gathered(found) for each in part)])
    # Sorted by block: the first failure is the same on one process and on many.
    return list({failure.cell: failure for failure in reversed(every)}.values())

"""What the numbers of a table follow from, in words and hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from hguide.experiments.ablation.distribute import Processes
from hguide.experiments.ablation.plan import PlannedCell
from hguide.experiments.ablation.results import CellResult
from hguide.experiments.ablation.setup import Setup
from hguide.experiments.ablation.store import Store
from hguide.images import write_bytes
from hguide.provenance import device_facts, versions

__all__ = ["classes_facts", "now", "outcome", "provenance", "write_cell_notes"]

PACKAGES = ("scipy", "PyYAML", "lightning")
NAMES_IN_A_RULE = 40


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def provenance(setup: Setup, command: str, processes: Processes, started: str) -> dict[str, Any]:
    """Of results.json; see `Results`.

    Args:
        setup: of the run.
        command: as typed.
        processes: that sampled.
        started: time.
    """
    reference, landuse = setup.reference, setup.extractors["landuse"]
    repeat = setup.extractors.get("squeezenet")
    real = setup.real(setup.baseline)
    return {
        "command": command,
        "versions": versions() | {name: version(name) for name in PACKAGES},
        "device": device_facts(processes.device),
        "reference": {
            "name": reference.name,
            "hash": reference.hash,
            "crops": real.count,
            "scenes": real.scene_count,
            "split": "train",
            "size": list(reference.size),
            "about": dict(reference.about),
        },
        "features": {"name": landuse.name, "hash": landuse.hash},
        "repeat_features": None if repeat is None else {"name": repeat.name, "hash": repeat.hash},
        **_lender_facts(setup),
        "processes": processes.count,
        "threads": torch.get_num_threads(),
        "started": started,
        "finished": now(),
    }


def _lender_facts(setup: Setup) -> dict[str, Any]:
    """Model and hash of each lender; nothing where there are none."""
    hashes: dict[str, str] = {}
    for planned in setup.cells:
        hashes |= planned.facts.get("models", {})
    named = {name: {"model": setup.config.models[name], "hash": found} for name, found in hashes.items()}
    return {"lenders": named} if named else {}


def classes_facts(planned: PlannedCell) -> dict[str, Any]:
    """Which class or prompt a seed has."""
    given, names = planned.conditions, planned.class_names
    shown = [names[each] if isinstance(each, int) and each < len(names) else str(each) for each in given]
    if list(given) == list(range(len(given))):
        rule = f"seed s has class s mod {len(given)}"
    else:
        listed = ", ".join(shown[:NAMES_IN_A_RULE]) + (", ..." if len(shown) > NAMES_IN_A_RULE else "")
        rule = f"seed s has entry s mod {len(given)} of: {listed}"
    return {"count": len(given), "names": shown, "rule": rule}


def outcome(cell: CellResult) -> dict[str, Any]:
    """What became of a cell, for its note."""
    return {
        "status": cell.status,
        "error": cell.error,
        "images": cell.count,
        "seconds_per_image": cell.seconds_per_image,
    }


def write_cell_notes(store: Store, setup: Setup, outcome: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """OUT/cells/HASH/cell.json: what the images under it follow from, for readers of the folder.

    Args:
        store: where.
        setup: of the run.
        outcome: cell hash -> status, error and so on, once they are known.
    """
    for planned in setup.cells:
        note = {
            "hash": planned.hash,
            "label": planned.cell.label,
            "axes": dict(planned.cell.axes),
            "facts": dict(planned.facts),
            "versions": versions(),
            **(outcome or {}).get(planned.hash, {"status": "started"}),
        }
        folder = store.cell(planned.hash)
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / "cell.json", (json.dumps(note, indent=1) + "\n").encode())

"""`hguide validate`: whether an ablation can run, before it does."""

from __future__ import annotations

from typing import Any

HELP = """
Reads the YAML file of an ablation, loads its models, and lists every mistake at once with its line and near matches
(exit code 2); then the cells, and which of them their model refuses (exit code 1). Nothing is sampled or written.
"""
EXAMPLES = """
hguide validate ssg_table5.yaml
"""


def add_arguments(parser: Any) -> None:
    """Options of `hguide validate`."""
    parser.add_argument("file", type=str, help="YAML file of the ablation, or the name of one that comes along.")
    parser.add_argument("--limit", type=int | None, default=None, help="only so many of the seeds.")


def run(options: Any) -> int:
    """Check, print the cells."""
    from hguide.experiments.ablation.configs import config_file
    from hguide.experiments.ablation.setup import prepare

    setup = prepare(config_file(options.file), limit=options.limit)
    for planned in setup.cells:
        mark = " (baseline)" if planned is setup.baseline else ""
        print(f"{planned.hash}  {planned.cell.label}{mark}")
    print(f"{len(setup.cells)} cells of {len(setup.seeds)} images; measures: {', '.join(setup.measures)}")
    refused = [planned for planned in setup.cells if planned.error is not None]
    for planned in refused:
        print(f"cannot run: {planned.cell.label}: {planned.error}")
    return 1 if refused else 0

"""`hguide ablate`: a table from a YAML file of axes."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

from hguide.cli.parser import add_flag

if TYPE_CHECKING:
    from hguide.experiments.ablation.ablate import Options

HELP = """
Samples every cell of an ablation (models, guidances, priors, schedules, strengths, samplers, temperatures), measures
them against real pictures with intervals, and writes OUT/results.json. Images and features are stored once per cell and
seed: interrupted anywhere, the same command goes on; cells, seeds and measures added to the file later use what is
there. A cell that fails is reported and the others go on (exit code 1). docs/ablation.md describes the file.
"""
EXAMPLES = """
hguide ablate ssg_table5.yaml --out runs/table5
hguide ablate ssg_table5.yaml --out runs/table5 --dry-run
hguide ablate ssg_table5.yaml --out runs/table5 --limit 64
hguide ablate ssg_table5.yaml --out runs/table5 --devices 2
"""


def add_arguments(parser: Any) -> None:
    """Options of `hguide ablate`."""
    parser.add_argument("file", type=str, help="YAML file of the ablation, or the name of one that comes along.")
    parser.add_argument("--out", type=str, required=True, help="folder of images, features and results.json.")
    parser.add_argument("--limit", type=int | None, default=None, help="only so many of the seeds.")
    add_flag(parser, "dry-run", False, "say what would be done and how long it would take; sample next to nothing.")
    parser.add_argument("--devices", type=int, default=1, help="processes (or GPUs) per machine.")
    parser.add_argument("--num-nodes", type=int, default=1, help="machines.")
    parser.add_argument("--device", type=str, default="auto", help="auto (a GPU if there is one), cpu or cuda.")


def run(options: Any) -> int:
    """Run the ablation, print its table."""
    from hguide.experiments.ablation.ablate import ablate, dry_run

    asked = _options(options)
    if options.dry_run:
        text, runs = dry_run(asked, _note)
        print(text)
        return 0 if runs else 1
    results = ablate(asked, _note)
    if results is None:
        return 0
    from hguide.experiments.ablation.store import Store
    from hguide.experiments.ablation.text import results_text
    from hguide.experiments.report.write import write_report

    print(results_text(results))
    report = write_report(results, Store(asked.out), asked.out)[0]
    print(f"\n{asked.out / 'results.json'}\n{report}")
    return 0 if all(cell.status == "done" for cell in results.cells) else 1


def _options(options: Any) -> Options:
    from hguide.cli.options import writable_folder
    from hguide.errors import ConfigError
    from hguide.experiments.ablation.ablate import Options
    from hguide.experiments.ablation.configs import config_file
    from hguide.experiments.ablation.distribute import device_of

    if options.devices < 1 or options.num_nodes < 1:
        raise ConfigError(f"devices and num-nodes are at least 1, got {options.devices} and {options.num_nodes}.")
    return Options(
        config=config_file(options.file),
        out=writable_folder(options.out),
        limit=options.limit,
        device=device_of(options.device),
        devices=options.devices,
        num_nodes=options.num_nodes,
        command=shlex.join(["hguide", *map(str, sys.argv[1:])]),
    )


def _note(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)

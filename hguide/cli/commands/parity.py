"""`hguide parity`: recorded numbers of the official implementations, replayed."""

from __future__ import annotations

from typing import Any

HELP = """
Replays every recorded case under a folder (sizes and settings come from the folder itself) and prints quantity, largest
error, tolerance and verdict of each tensor. Exit code 1 where one misses, or where nothing was compared.
"""
EXAMPLES = """
hguide parity golden/var
hguide parity golden/var --only adaln,no_l2norm
"""


def add_arguments(parser: Any) -> None:
    """Options of `hguide parity`."""
    parser.add_argument("directory", type=str, help="folder with config.json files and recorded tensors.")
    parser.add_argument("--only", type=str | list[str], default=[], help="cases or folders; all by default.")


def run(options: Any) -> int:
    """Compare, print the report."""
    from pathlib import Path

    from hguide.experiments.parity.run import parity

    only = [part.strip() for part in options.only.split(",")] if isinstance(options.only, str) else options.only
    report = parity(Path(options.directory).expanduser(), only=only)
    print(report.text())
    return 0 if report.ok else 1

"""`hguide report`: the report of an ablation, written again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HELP = """
Writes the report of an ablation from what `hguide ablate` left in its folder: report.html (one file that opens
offline: tables with intervals, pictures of the same seeds side by side, figures, provenance), table.md, table.tex and
figures/*.png, *.svg. Nothing is sampled or measured; without the stored images the page comes without pictures.
"""
EXAMPLES = """
hguide report runs/table5
hguide report runs/table5 --pictures 42 --out slides
"""


def add_arguments(parser: Any) -> None:
    """Options of `hguide report`."""
    parser.add_argument("folder", type=str, help="folder with results.json, as --out of `hguide ablate`.")
    parser.add_argument("--out", type=str | None, default=None, help="folder of the report; that of the results.")
    parser.add_argument("--pictures", type=int, default=21, help="columns of the picture grid, at most.")


def run(options: Any) -> None:
    """Read, draw, write."""
    from hguide.cli.options import writable_folder
    from hguide.experiments.ablation.results import Results
    from hguide.experiments.ablation.store import Store
    from hguide.experiments.report.write import write_report

    folder = Path(options.folder).expanduser()
    results = Results.read(folder)
    out = folder if options.out is None else writable_folder(options.out)
    paths = write_report(results, Store(folder), out, pictures=options.pictures)
    print("\n".join(map(str, paths)))

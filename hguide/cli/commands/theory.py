"""`hguide theory`: the figures of the theory page, and which claims hold."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hguide.cli.options import add_model
from hguide.errors import ConfigError, near_matches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HELP = """
Draws every figure of docs/theory.md as PNG and SVG, measures how much of a step's tokens the low and the high band of
the final latent share, and prints each claim with the function that runs it and what came of it: it holds exactly, it
is an approximation with this error, it is false, or it is vacuous. Every number is computed anew.
"""
EXAMPLES = """
hguide theory --out theory
hguide theory --only claims
hguide theory --only leakage-nearest
hguide theory --only mutual-information --images 500 --guidances "cfg(3.0); cfg(3.0) | ssg(0.5)"
"""
CLAIMS, MEASURED = "claims", "mutual-information"


def add_arguments(parser: Any) -> None:
    """Options of `hguide theory`."""
    parser.add_argument("--only", type=str | None, default=None, help="one figure, or claims for the table alone.")
    parser.add_argument("--out", type=str, default="theory", help="folder of the figures.")
    add_model(parser)
    parser.add_argument("--images", type=int, default=42, help="pictures per guidance for mutual-information.")
    parser.add_argument(
        "--guidances",
        type=str | list[str],
        default="cfg(3.0); cfg(3.0) | ssg(0.5)",
        help="for mutual-information; changes are against the first.",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="pictures at once.")


def run(options: Any) -> None:
    """Draw, measure and print."""
    from hguide.cli.options import writable_folder
    from hguide.theory.claims import table
    from hguide.theory.figures import FIGURES

    known = (CLAIMS, *FIGURES, MEASURED)
    if options.only is not None and options.only not in known:
        raise ConfigError(f"nothing to draw is called {options.only!r}: {near_matches(options.only, known)}")
    if options.only != CLAIMS:
        out = writable_folder(options.out)
        out.mkdir(parents=True, exist_ok=True)
        for name in FIGURES if options.only is None else [options.only] if options.only in FIGURES else []:
            module, function = FIGURES[name].split(":")
            _write(getattr(importlib.import_module(module), function)(), out, name)
        if options.only in (None, MEASURED):
            _measure(options, out)
    if options.only in (None, CLAIMS):
        print(table())


def _measure(options: Any, out: Path) -> None:
    from hguide.cli.options import load_model
    from hguide.images import write_bytes
    from hguide.lists import guidance_texts
    from hguide.theory.figures.mutual_information import figure
    from hguide.theory.measured import measured_hierarchy

    generator = load_model(options)
    found = measured_hierarchy(
        generator,
        options.model,
        guidance_texts(options.guidances),
        options.images,
        batch_size=options.batch_size,
        progress=lambda line: print(line, file=sys.stderr),
    )
    write_bytes(out / f"{MEASURED}.json", found.to_json().encode())
    _write(figure(found.rows), out, MEASURED)
    print(found.text() + "\n")


def _write(figure: Figure, out: Path, name: str) -> None:
    """NAME.png and NAME.svg, the same bytes for the same figure."""
    import io

    from matplotlib import rc_context

    from hguide.images import write_bytes

    for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        buffer = io.BytesIO()
        with rc_context({"svg.hashsalt": name}):
            figure.savefig(buffer, format=ending, dpi=80, metadata=metadata)
        write_bytes(out / f"{name}.{ending}", buffer.getvalue())
    print(out / f"{name}.png", file=sys.stderr)

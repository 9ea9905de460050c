"""The files of a report."""

from __future__ import annotations

from pathlib import Path

from hguide.errors import ConfigError
from hguide.experiments.ablation.results import Results
from hguide.experiments.report.differences_table import differences_table
from hguide.experiments.report.figures import figure_files, write_figures
from hguide.experiments.report.latex import latex_table
from hguide.experiments.report.markdown import escape_markdown, markdown_table
from hguide.experiments.report.measures_table import measures_table
from hguide.experiments.report.page import page
from hguide.experiments.report.picture_grid import Images, picture_grid
from hguide.experiments.report.summary import summary
from hguide.images import write_bytes

__all__ = ["write_report"]


def write_report(results: Results, store: Images | None, out: str | Path, *, pictures: int = 21) -> list[Path]:
    """Write report.html, table.md, table.tex and figures/*.png, *.svg; each file appears whole or not at all.

    Args:
        results: what results.json holds.
        store: where the images are; None for a report without pictures.
        out: folder; is made where it is missing.
        pictures: columns of the picture grid at most; fewer where they would make the page large.

    Returns:
        The paths, the page first.

    Raises:
        ConfigError: the folder cannot be written, or `pictures` is not positive.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {folder}: {error.strerror or error}.") from error
    tables = [each for each in (measures_table(results), differences_table(results)) if each is not None]
    findings = escape_markdown(" ".join(summary(results)))
    figures = figure_files(results)
    grid = None if store is None else picture_grid(results, store, pictures)
    texts = {
        "report.html": page(results, figures, grid),
        "table.md": "\n".join([f"# {escape_markdown(results.title)}\n", f"{findings}\n", *map(markdown_table, tables)]),
        "table.tex": "\n".join(map(latex_table, tables)),
    }
    for name, text in texts.items():
        write_bytes(folder / name, text.encode())
    return [*(folder / name for name in texts), *write_figures(figures, folder / "figures")]

"""report.html: one file that opens offline, with its style, script, figures and pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from hguide.experiments.ablation.results import Results
from hguide.experiments.report.differences_table import differences_table
from hguide.experiments.report.figures import FigureFile
from hguide.experiments.report.html_table import html_table
from hguide.experiments.report.measures_table import measures_table, trouble
from hguide.experiments.report.picture_grid import PictureGrid
from hguide.experiments.report.picture_section import picture_section
from hguide.experiments.report.provenance_section import provenance_section
from hguide.experiments.report.summary import summary
from hguide.experiments.report.table import letters

__all__ = ["page"]

# Nothing is fetched from anywhere, whatever a label or a description contains.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(results: Results, figures: Sequence[FigureFile], grid: PictureGrid | None) -> str:
    """The page as HTML.

    Args:
        results: tables, summary and provenance.
        figures: drawn from them.
        grid: the pictures; None where none are stored.
    """
    sections = [
        ("table", "Measures", html_table(measures_table(results)) + _measures(results)),
        ("failed", "Cells that are not done", _failed(results)),
        ("differences", "Differences from the baseline", _differences(results)),
        ("pictures-section", "Pictures", picture_section(results, grid)),
        *((each.name, each.title, _figure(each)) for each in figures),
        ("provenance", "Provenance", provenance_section(results)),
    ]
    sections = [each for each in sections if each[2]]
    contents = "\n".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in sections)
    body = "\n".join(
        f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{escape(title)}</h2>\n{html}\n'
        "</section>"
        for name, title, html in sections
    )
    description = f'<p class="description">{escape(results.description)}</p>' if results.description else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="hguide">
<title>{escape(results.title)}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
<header>
<h1>{escape(results.title)}</h1>
{description}
<p class="summary">{escape(" ".join(summary(results)))}</p>
<nav aria-label="Contents">
{contents}
</nav>
</header>
<main>
{body}
</main>
<script>
{_asset("page.js")}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return files("hguide.experiments.report").joinpath(name).read_text(encoding="utf-8")


def _measures(results: Results) -> str:
    """What each column is."""
    lines = "\n".join(
        f"<dt>{escape(each.name)}{f' ({escape(each.network)})' if each.network else ''}</dt>"
        f"<dd>{escape(each.description)}</dd>"
        for each in results.measures
    )
    return f'\n<details>\n<summary>What the measures are</summary>\n<dl class="facts">\n{lines}\n</dl>\n</details>'


def _failed(results: Results) -> str:
    names, wanted = letters(each.hash for each in results.cells), results.seeds.get("count", 0)
    lines = [
        f'<li class="{cell.status}"><b class="letter">{names[cell.hash]}</b> {escape(cell.label)}: '
        f"<code>{escape(trouble(cell, wanted))}</code></li>"
        for cell in results.cells
        if cell.status != "done"
    ]
    return f'<ul class="failed-cells">\n{chr(10).join(lines)}\n</ul>' if lines else ""


def _differences(results: Results) -> str:
    table = differences_table(results)
    return html_table(table) if table else ""


def _figure(figure: FigureFile) -> str:
    # As an image, not as inline elements: the ids of several SVG would meet in one page.
    source = base64.b64encode(figure.svg).decode()
    alt = escape(f"{figure.title}. {figure.text}")
    return (
        f'<figure class="plot" id="figure-{figure.name}"><img src="data:image/svg+xml;base64,{source}" alt="{alt}">'
        f"<figcaption>{escape(figure.text)}</figcaption></figure>"
    )

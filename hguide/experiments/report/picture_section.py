"""The pictures of the page: one seed under all cells enlarged, above the grid of all."""

from __future__ import annotations

from html import escape

from hguide.experiments.ablation.results import CellResult, Results
from hguide.experiments.report.html_table import breakable
from hguide.experiments.report.measures_table import REMARKS
from hguide.experiments.report.picture_grid import PictureGrid
from hguide.experiments.report.table import letters

__all__ = ["picture_section"]

ENLARGED = 128


def picture_section(results: Results, grid: PictureGrid | None) -> str:
    """HTML of the section; without script it still shows the first seed enlarged, and the whole grid."""
    if grid is None:
        return "<p>No stored images were found beside results.json.</p>"
    names = letters(each.hash for each in results.cells)
    cells = list(results.cells)
    heads = "".join(_head(grid, place) for place in range(len(grid.seeds)))
    rows = "\n".join(
        f"<tr>{_row_head(cell, names[cell.hash])}{_pictures(grid, row, cell, names[cell.hash])}</tr>"
        for cell, row in zip(cells, grid.rows, strict=True)
    )
    figures = "\n".join(
        _enlarged(grid, row[0], cell, names[cell.hash]) for cell, row in zip(cells, grid.rows, strict=True)
    )
    return f"""<p>The same seed is the same noise in every row. Point at a picture to see its seed under all cells;
click, or use the buttons and the arrow keys, to hold it. {escape(grid.note)}</p>
<div id="enlarged" style="--zoom: {_zoom(grid)}px">
<h3 id="chosen" aria-live="polite">{escape(_seed_name(grid, 0))}, all cells</h3>
<div class="cells">
{figures}
</div>
</div>
<div class="scroll" tabindex="0" role="region" aria-label="Pictures: rows are cells, columns are seeds">
<table class="pictures" id="pictures" style="--columns: {len(grid.seeds)}">
<thead><tr><th scope="col" class="label">cell</th>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>"""


def _zoom(grid: PictureGrid) -> int:
    """Width of an enlarged picture: a whole multiple of its pixels where it is small."""
    width = grid.size[1]
    return width * max(1, round(ENLARGED / width)) if width <= ENLARGED else min(width, 192)


def _seed_name(grid: PictureGrid, place: int) -> str:
    return f"Seed {grid.seeds[place]}" + (f", {grid.names[place]}" if grid.names[place] else "")


def _row_head(cell: CellResult, letter: str) -> str:
    name = f'<span class="name" title="{escape(cell.label)}">{breakable(cell.label)}</span>'
    return f'<th scope="row" class="label"><b class="letter">{letter}</b>{name}</th>'


def _head(grid: PictureGrid, place: int) -> str:
    name = escape(_seed_name(grid, place))
    pressed = "true" if place == 0 else "false"
    return (
        f'<th scope="col"><button type="button" aria-pressed="{pressed}" data-column="{place}" data-name="{name}" '
        f'title="{name}" aria-label="{name}: show under all cells">{grid.seeds[place]}</button></th>'
    )


def _alt(grid: PictureGrid, place: int, cell: CellResult, letter: str) -> str:
    return f"{_seed_name(grid, place)}, cell {letter}: {cell.label}"


def _pictures(grid: PictureGrid, row: tuple[str | None, ...], cell: CellResult, letter: str) -> str:
    height, width = grid.size
    found = []
    for place, uri in enumerate(row):
        if uri is None:
            reason = escape(REMARKS.get(cell.status, "not stored"))
            found.append(f'<td data-column="{place}" class="empty" title="{reason}">–</td>')
        else:
            alt = escape(_alt(grid, place, cell, letter))
            found.append(
                f'<td data-column="{place}"><img src="{uri}" alt="{alt}" title="{alt}" '
                f'width="{width}" height="{height}"></td>'
            )
    return "".join(found)


def _enlarged(grid: PictureGrid, uri: str | None, cell: CellResult, letter: str) -> str:
    height, width = grid.size
    alt = escape(_alt(grid, 0, cell, letter))
    source = f'src="{uri}" alt="{alt}"' if uri else 'src="data:," alt="" hidden'
    empty = escape(REMARKS.get(cell.status, "not stored"))
    hidden = " hidden" if uri else ""
    return (
        f'<figure><img {source} width="{width}" height="{height}"><span class="empty"{hidden}>{empty}</span>'
        f'<figcaption><b class="letter">{letter}</b> {breakable(cell.label)}</figcaption></figure>'
    )

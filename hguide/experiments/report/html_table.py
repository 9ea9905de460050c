"""Tables as HTML: sortable by column, marks that do not rest on colour, intervals in small type."""

from __future__ import annotations

import re
from html import escape

from hguide.experiments.report.table import BEST, BETTER, DIFFERS, NOTHING, SECOND, WORSE, Column, Entry, Row, Table

__all__ = ["breakable", "html_table"]

SIGNS = {BETTER: "▲", WORSE: "▼", DIFFERS: "◆"}


def breakable(text: str) -> str:
    """Escaped text that a narrow column breaks before long options rather than inside them.

    >>> breakable("ssg(0.5, prior=dse(transform=haar))")
    'ssg(0.5, prior=dse(<wbr>transform=haar))'
    """
    return re.sub(r"\((?=[^(),\s]{8})|,(?=\S)", r"\g<0><wbr>", escape(text))


def html_table(table: Table) -> str:
    """The table in a box that scrolls sideways, and its notes."""
    rows = "\n".join(_row(row, place) for place, row in enumerate(table.rows))
    floor = f'\n<tbody class="floor">\n{_row(table.floor, 0)}\n</tbody>' if table.floor else ""
    notes = "\n".join(f"<li>{escape(note)}</li>" for note in table.notes)
    if table.troubles:
        notes += '\n<li>†: not done, see <a href="#failed">below</a>.</li>'
    return f"""<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}">
<table class="numbers" id="table-{escape(table.name)}">
<caption>{escape(table.caption)}</caption>
<thead>
{_heads(table)}
</thead>
<tbody>
{rows}
</tbody>{floor}
</table>
</div>
<ul class="notes">
{notes}
</ul>"""


def _heads(table: Table) -> str:
    groups = "".join(
        f'<th scope="colgroup" colspan="{width}">{escape(name)}</th>' if name else f'<td colspan="{width}"></td>'
        for name, width in table.groups
    )
    first = '<th scope="col" class="label" data-better="low"><button type="button">cell</button></th>'
    names = "".join(map(_head, table.columns))
    return f'<tr class="groups"><td class="label"></td>{groups}</tr>\n<tr>{first}{names}</tr>'


def _head(column: Column) -> str:
    better = "high" if column.higher_is_better else "low"
    words = {True: " (higher is better)", False: " (lower is better)", None: ""}[column.higher_is_better]
    arrow = f' <span aria-hidden="true">{column.arrow}</span>' if column.arrow else ""
    title = escape(f"{column.description}{words}".strip())
    name = f'{escape(column.name)}{arrow}<span class="unseen">{escape(words)}</span>'
    return f'<th scope="col" data-better="{better}"><button type="button" title="{title}">{name}</button></th>'


def _row(row: Row, place: int) -> str:
    letter = f'<b class="letter">{escape(row.letter)}</b>' if row.letter else ""
    dagger = '<sup title="see the notes">†</sup>' if row.dagger else ""
    remark = f' <span class="remark">{escape(row.remark)}</span>' if row.remark else ""
    head = f'{letter}{dagger}<span class="name">{breakable(row.label)}{remark}</span>'
    entries = "".join(map(_entry, row.entries))
    state = f' class="{row.remark.replace(" ", "-")}"' if row.remark else ""
    return f'<tr{state}><th scope="row" class="label" data-value="{place}">{head}</th>{entries}</tr>'


def _entry(entry: Entry) -> str:
    if entry.number is None:
        return f'<td class="none">{NOTHING}</td>'
    number = escape(_minus(entry.text))
    text = {BEST: f"<strong>{number}</strong>", SECOND: f"<u>{number}</u>"}.get(entry.mark, number)
    if entry.mark in SIGNS:
        text = f'<span aria-hidden="true">{SIGNS[entry.mark]}</span> <strong>{number}</strong>'
    unseen = f'<span class="unseen"> {entry.mark}</span>' if entry.mark else ""
    interval = f"<small>{escape(_minus(entry.interval))}</small>" if entry.interval else ""
    state = f' class="{entry.mark}"' if entry.mark else ""
    return f'<td{state} data-value="{entry.number!r}">{text}{unseen}{interval}</td>'


def _minus(text: str) -> str:
    """With the sign of arithmetic, which is as wide as a plus."""
    return text.replace("-", "−")

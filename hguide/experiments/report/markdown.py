"""Tables as GitHub-flavoured Markdown, aligned in the source."""

from __future__ import annotations

import re

from hguide.experiments.report.table import BEST, BETTER, DIFFERS, SECOND, WORSE, Entry, Row, Table

__all__ = ["escape_markdown", "markdown_table"]

SIGNS = {BETTER: "▲", WORSE: "▼", DIFFERS: "◆"}


def escape_markdown(text: str) -> str:
    r"""Text that Markdown shows as it is, also inside a table.

    >>> escape_markdown("cfg(1.5) | ssg")
    'cfg(1.5) \\| ssg'
    """
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def markdown_table(table: Table) -> str:
    """A heading, the table and its notes. GitHub knows no underline: the second is `<ins>`."""
    head = ["cell", *(f"{escape_markdown(table.full_name(each))} {each.arrow}".strip() for each in table.columns)]
    rows = [_cells(row) for row in (*table.rows, *([table.floor] if table.floor else []))]
    widths = [max(3, *(len(row[place]) for row in (head, *rows))) for place in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [_line(head, widths), _line(rule, widths), *(_line(row, widths) for row in rows)]
    notes = [f"- {escape_markdown(note)}" for note in (*table.notes, *table.troubles)]
    return "\n".join([f"## {escape_markdown(table.caption)}", "", *lines, "", *notes]) + "\n"


def _line(cells: list[str], widths: list[int]) -> str:
    first = cells[0].ljust(widths[0])
    rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return f"| {' | '.join([first, *rest])} |"


def _cells(row: Row) -> list[str]:
    label = escape_markdown(row.label)
    first = f"**{row.letter}**{'†' if row.dagger else ''} {label}" if row.letter else f"*{label}*"
    if row.remark:
        first += f" ({row.remark})"
    return [first, *map(_entry, row.entries)]


def _entry(entry: Entry) -> str:
    text = {BEST: f"**{entry.text}**", SECOND: f"<ins>{entry.text}</ins>"}.get(entry.mark, entry.text)
    return " ".join(filter(None, (text, entry.interval, SIGNS.get(entry.mark, ""))))

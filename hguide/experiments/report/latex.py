"""Tables as LaTeX with booktabs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hguide.experiments.report.table import BEST, BETTER, DIFFERS, NOTHING, SECOND, WORSE, Entry, Row, Table

__all__ = ["escape_latex", "latex_table"]

ACROSS = 9

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': "''",
    "−": "$-$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "λ": r"$\lambda$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "†": r"\textdagger{}",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "◆": r"$\blacklozenge$",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
}
_SIGNS = {BETTER: "▲", WORSE: "▼", DIFFERS: "◆"}


def escape_latex(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> escape_latex("top_p | 5 %")
    'top\\_p \\textbar{} 5 \\%'
    """
    return "".join(_SPECIAL.get(sign, sign) for sign in " ".join(text.split()))


def latex_table(table: Table) -> str:
    r"""A `table*` whose intervals stand in small type under their numbers; many columns are stacked in blocks.

    Needs booktabs and graphicx, and amssymb for the signs of a table of differences.
    """
    packages = "booktabs, graphicx, amssymb" if _signs(table) else "booktabs, graphicx"
    tabulars = [line for number, block in enumerate(_blocks(table)) for line in _tabular(block, number > 0)]
    notes = r" \\ ".join(escape_latex(note) for note in (*table.notes, *table.troubles))
    return "\n".join(
        [
            f"% \\usepackage{{{packages}}}",
            r"\begin{table*}[t]",
            r"\centering",
            f"\\caption{{{escape_latex(table.caption)}.}}",
            f"\\label{{tab:{table.name}}}",
            r"\smallskip",
            *tabulars,
            rf"\par\smallskip\begin{{minipage}}{{\linewidth}}\footnotesize {notes}\end{{minipage}}",
            r"\end{table*}",
            "",
        ]
    )


def _blocks(table: Table) -> list[Table]:
    """Tables of at most `ACROSS` columns, groups kept together where they are not larger themselves."""
    places: list[list[int]] = [[]]
    start = 0
    for _, width in table.groups:
        for first in range(start, start + width, ACROSS):
            part = [*range(first, min(first + ACROSS, start + width))]
            if places[-1] and len(places[-1]) + len(part) > ACROSS:
                places.append([])
            places[-1] += part
        start += width
    return [_only(table, each) for each in places]


def _only(table: Table, places: Sequence[int]) -> Table:
    """The table with some of its columns."""

    def row(full: Row) -> Row:
        return replace(full, entries=tuple(full.entries[place] for place in places))

    columns = tuple(table.columns[place] for place in places)
    floor = None if table.floor is None else row(table.floor)
    return replace(table, columns=columns, rows=tuple(map(row, table.rows)), floor=floor)


def _tabular(table: Table, further: bool) -> list[str]:
    """One block of columns; a further one stands below the first and names the cells by their letters alone."""
    known = table.floor is not None and any(entry.number is not None for entry in table.floor.entries)
    floor = [r"\midrule", *_lines(table.floor, further)] if table.floor and known else []
    return [
        *([r"\par\medskip"] if further else []),
        # Made narrower where it is too wide, never wider.
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{\scriptsize",
        f"\\begin{{tabular}}{{@{{}}l{'r' * len(table.columns)}@{{}}}}",
        r"\toprule",
        *_heads(table),
        r"\midrule",
        *(line for row in table.rows for line in _lines(row, further)),
        *floor,
        r"\bottomrule",
        r"\end{tabular}}",
    ]


def _signs(table: Table) -> bool:
    return any(entry.mark in _SIGNS for row in table.rows for entry in row.entries)


def _heads(table: Table) -> list[str]:
    lines = []
    if any(name for name, _ in table.groups):
        spans, rules, place = [], [], 2
        for name, width in table.groups:
            spans.append(f"\\multicolumn{{{width}}}{{c}}{{{escape_latex(name)}}}")
            if name:
                rules.append(f"\\cmidrule(lr){{{place}-{place + width - 1}}}")
            place += width
        lines += [f" & {' & '.join(spans)} \\\\", " ".join(rules)]
    names = [escape_latex(f"{each.name} {each.arrow}".strip()) for each in table.columns]
    return [*lines, f"cell & {' & '.join(names)} \\\\"]


def _lines(row: Row, letter_only: bool) -> list[str]:
    """The numbers, and under them the intervals."""
    label = escape_latex(row.label) + (f" ({escape_latex(row.remark)})" if row.remark else "")
    if letter_only and row.letter:
        label = ""
    if row.letter:
        label = f"{row.letter}{escape_latex('†') if row.dagger else ''}\\enspace {label}"
    else:
        label = f"\\textit{{{label}}}"
    lines = [f"{label} & {' & '.join(map(_number, row.entries))} \\\\"]
    if any(entry.interval for entry in row.entries):
        small = [f"{{\\tiny {_minus(each.interval)}}}" if each.interval else "" for each in row.entries]
        lines.append(f" & {' & '.join(small)} \\\\")
    return lines


def _number(entry: Entry) -> str:
    text = _minus(entry.text)
    text = {BEST: f"\\textbf{{{text}}}", SECOND: f"\\underline{{{text}}}"}.get(entry.mark, text)
    return f"{escape_latex(_SIGNS[entry.mark])} {text}" if entry.mark in _SIGNS else text


def _minus(text: str) -> str:
    """Numbers with the sign of arithmetic for the hyphen."""
    return escape_latex(text) if text == NOTHING else escape_latex(text.replace("-", "−"))

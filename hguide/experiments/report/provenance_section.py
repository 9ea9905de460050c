"""What is needed to repeat the table: command, versions, hashes, configuration and what each cell was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from hguide.experiments.ablation.results import CellResult, Results
from hguide.experiments.report.table import NOTHING, letters

__all__ = ["facts", "provenance_section"]


def facts(results: Results) -> list[tuple[str, str]]:
    """Name and value of everything that is the same for all cells."""
    found = [
        ("results_hash", results.results_hash),
        ("config_hash", results.config_hash),
        *_flat(results.provenance, ""),
        *_flat(results.seeds, "seeds"),
        ("classes.count", str(results.classes.get("count", ""))),
        ("classes.rule", str(results.classes.get("rule", ""))),
        ("classes.names", ", ".join(map(str, results.classes.get("names") or []))),
    ]
    return [(name, value) for name, value in found if value]


def provenance_section(results: Results) -> str:
    """Three collapsible parts: facts, cells, configuration as YAML."""
    import yaml

    lines = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts(results))
    config = escape(yaml.safe_dump(_plain(results.config), sort_keys=False, allow_unicode=True, width=100))
    return f"""<details open>
<summary>Command, versions, device, data and networks</summary>
<dl class="facts">
{lines}
</dl>
</details>
<details>
<summary>Cells: guidance as parsed, axes and hashes</summary>
{_cells(results)}
</details>
<details>
<summary>Configuration</summary>
<pre>{config}</pre>
</details>"""


def _cells(results: Results) -> str:
    """One row per cell."""
    names = letters(each.hash for each in results.cells)
    axes = list(dict.fromkeys(axis for cell in results.cells for axis in cell.axes))
    heads = ["guidance as parsed", *axes, "status", "error", "images", "streams", "steps", "cell hash", "model hash"]
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
    rows = "\n".join(
        f'<tr><th scope="row" class="label"><b class="letter">{names[cell.hash]}</b></th>{_cell(cell, axes)}</tr>'
        for cell in results.cells
    )
    return f"""<div class="scroll" tabindex="0" role="region" aria-label="Cells">
<table class="cells-table">
<thead><tr><th scope="col" class="label">cell</th>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>"""


def _cell(cell: CellResult, axes: Sequence[str]) -> str:
    values = [cell.guidance, *(cell.axes.get(axis) for axis in axes), cell.status, cell.error, cell.count]
    values += [cell.streams, cell.network_calls, cell.hash, cell.model_hash]
    texts = ["; ".join(f"{name} {text}".strip() for name, text in _flat(value, "")) for value in values]
    return "".join(f"<td{_wide(text)}>{escape(text)}</td>" for text in texts)


def _wide(text: str) -> str:
    return ' class="wide"' if len(text) > 24 else ""


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Nested mappings as dotted names; lists as one line."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, ", ".join(map(str, value))
    else:
        yield name, NOTHING if value is None else str(value)


def _plain(value: Any) -> Any:
    """Mappings and sequences of any kind as those that YAML knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value

"""Results as a table of text."""

from __future__ import annotations

from hguide.experiments.ablation.results import CellResult, Estimate, Results

__all__ = ["results_text"]


def results_text(results: Results) -> str:
    """The table with intervals; * where the difference from the baseline excludes zero."""
    told = {(each.cell, each.measure) for each in results.comparisons if each.excludes_zero}
    head = ["cell", *(each.name for each in results.measures), "s/image"]
    rows = [[_name(results, cell), *_numbers(results, cell, told), _seconds(cell)] for cell in results.cells]
    if results.floor:
        floor = [_shown(results.floor.get(each.key), each.digits, "") for each in results.measures]
        rows.append(["real test crops", *floor, ""])
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]
    lines += [f"failed: {cell.label}: {cell.error}" for cell in results.cells if cell.error is not None]
    count = results.seeds["count"]
    lines.append(f"{count} images a cell; 95 % intervals over scenes and seeds; * differs from the baseline.")
    return "\n".join(lines)


def _name(results: Results, cell: CellResult) -> str:
    return cell.label + (" (baseline)" if cell.hash == results.baseline else "")


def _numbers(results: Results, cell: CellResult, told: set[tuple[str, str]]) -> list[str]:
    return [
        _shown(cell.measures.get(each.key), each.digits, "*" if (cell.hash, each.key) in told else "")
        for each in results.measures
    ]


def _shown(estimate: Estimate | None, digits: int, mark: str) -> str:
    if estimate is None:
        return "-"
    return f"{estimate.estimate:.{digits}f}{mark} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _seconds(cell: CellResult) -> str:
    return "-" if cell.seconds_per_image is None else f"{cell.seconds_per_image:.3f}"

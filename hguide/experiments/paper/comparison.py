"""What a paper reports beside what was measured here, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hguide.experiments.ablation.results import Comparison, Estimate, Results
from hguide.experiments.paper.preset import Preset
from hguide.experiments.report.markdown import escape_markdown

__all__ = ["AGREES", "NOT_COMPARED", "OPPOSITE", "UNDECIDED", "ComparedRow", "PaperTable", "compare", "verdicts"]

AGREES, OPPOSITE, UNDECIDED, NOT_COMPARED = "same direction", "opposite direction", "undecided", ""

COUNTERPARTS: Mapping[str, tuple[str, ...]] = {
    "FID": ("kd", "fd"),
    "IS": ("score",),
    "sFID": ("sfd",),
    "precision": ("precision",),
    "recall": ("recall",),
    "seconds": (),
}
"""Column of a paper -> measures here that ask the same question; never the same numbers."""


@dataclass(frozen=True)
class ComparedRow:
    """One row.

    Attributes:
        label: of the row.
        reported: model of the paper -> column -> value.
        measured: measure -> number and interval.
        difference: measure -> paired difference from the baseline; empty for the baseline.
        seconds: per image.
        verdicts: column of the paper -> whether the reported and the measured difference from the baseline have one
            direction.
    """

    label: str
    reported: Mapping[str, Mapping[str, float]]
    measured: Mapping[str, Estimate]
    difference: Mapping[str, Comparison]
    seconds: float | None
    verdicts: Mapping[str, str]


@dataclass(frozen=True)
class PaperTable:
    """A paper's table, reported and measured.

    Attributes:
        preset: what was run.
        results: of the run.
        rows: in the order of the paper.
        model: that was measured.
    """

    preset: Preset
    results: Results
    rows: tuple[ComparedRow, ...]
    model: str

    @property
    def ok(self) -> bool:
        """Whether every row was measured."""
        return all(row.measured for row in self.rows)

    def differs(self) -> list[str]:
        """What is different from the paper's setting."""
        reported, seeds = self.preset.reported, self.results.seeds
        images = f"{reported['images']:,}" if reported["images"] else "not stated"
        lines = [
            f"model: {reported['models']} on {reported['data']} in the paper, {self.model} here",
            f"images per row: {images} in the paper, {seeds['count']:,} here (seeds {seeds['text']})",
            "measures: FID, IS and sFID of the paper stand on the Inception network; KD, FD, sFD and score here on "
            f"{self.results.provenance.get('features', {}).get('name', 'the bundled feature network')}: compare "
            "directions, never numbers",
            f"strength of the method: no printed value is known; here {_parameters(self.preset.parameters)}",
        ]
        return [*lines, *([self.preset.note] if self.preset.note else [])]

    def text(self) -> str:
        """Markdown: the table, what differs, and what a published checkpoint should give."""
        models = [*dict.fromkeys(model for row in self.rows for model in row.reported)]
        shown = [
            each for each in self.results.measures if each.key in ("kd", "fd", "sfd", "precision", "recall", "score")
        ]
        columns = self.preset.reported["columns"]
        head = ["row", *(f"reported {model}: {' / '.join(columns)}" for model in models)]
        head += [f"measured {each.name}" for each in shown] + ["s/image", "KD less the baseline's", "verdict"]
        rows = [self._cells(row, models, columns, [each.key for each in shown]) for row in self.rows]
        lines = [f"# {self.preset.title}", "", f"{self.preset.source}, preset `{self.preset.name}`.", ""]
        lines += _markdown([head, *rows])
        lines += ["", "What differs:", "", *(f"- {escape_markdown(line)}" for line in self.differs())]
        return "\n".join([*lines, *self._published()]) + "\n"

    def json(self) -> dict[str, Any]:
        """Preset, rows and verdicts as plain values."""
        return {"preset": asdict(self.preset), "model": self.model, "rows": [asdict(row) for row in self.rows]}

    def _cells(self, row: ComparedRow, models: Sequence[str], columns: Sequence[str], keys: Sequence[str]) -> list[str]:
        reported = [
            " / ".join(_number(row.reported.get(model, {}).get(column)) for column in columns) for model in models
        ]
        measured = [_estimate(row.measured.get(key)) for key in keys]
        verdicts = ", ".join(f"{column}: {verdict}" for column, verdict in row.verdicts.items() if verdict)
        label = row.label + (" (baseline)" if row.label == self.preset.baseline else "")
        seconds = "–" if row.seconds is None else f"{row.seconds:.3g}"
        return [escape_markdown(label), *reported, *measured, seconds, _estimate(row.difference.get("kd")), verdicts]

    def _published(self) -> list[str]:
        model, expected = self.preset.published.get("model"), self.preset.published.get("tolerance")
        if model is None:
            return []
        command = f"hguide paper {self.preset.name} --model {model} --seeds 0-49999 --reference REFERENCE.npz --npz"
        lines = [
            "",
            f"With the published checkpoint: `{command}`, then the evaluator of the paper on the `.npz` files.",
        ]
        return lines + ([f"Expected: {expected}."] if expected else [])


def compare(preset: Preset, results: Results, model: str) -> PaperTable:
    """The rows of a preset with what was measured of them.

    Args:
        preset: what was run.
        results: of the ablation with the preset's labels.
        model: that was measured.
    """
    baseline = next(row for row in preset.rows if row.label == preset.baseline)
    rows = []
    for row in preset.rows:
        cell = results.cell(row.label)
        found = {each.measure: each for each in results.comparisons if each.cell == cell.hash}
        found_verdicts = {} if row is baseline else verdicts(row.reported, baseline.reported, found)
        rows.append(ComparedRow(row.label, row.reported, cell.measures, found, cell.seconds_per_image, found_verdicts))
    return PaperTable(preset, results, tuple(rows), model)


def verdicts(
    reported: Mapping[str, Mapping[str, float]],
    baseline: Mapping[str, Mapping[str, float]],
    found: Mapping[str, Comparison],
) -> dict[str, str]:
    """Direction of each column; the paper's own models must agree among themselves to have one."""
    result = {}
    for column, measures in COUNTERPARTS.items():
        steps = [values[column] - baseline[model][column] for model, values in reported.items() if column in values]
        signs = {(step > 0) - (step < 0) for step in steps}
        measured = next((found[key] for key in measures if key in found), None)
        if len(signs) != 1 or 0 in signs or measured is None:
            continue
        if not measured.excludes_zero:
            result[column] = UNDECIDED
        else:
            result[column] = AGREES if (measured.estimate > 0) == (signs == {1}) else OPPOSITE
    return result


def _parameters(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in values.items()) or "as in the rows"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def _estimate(value: Estimate | Comparison | None) -> str:
    return "–" if value is None else f"{value.estimate:.4g} [{value.low:.4g}, {value.high:.4g}]"


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]]

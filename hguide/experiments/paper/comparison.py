"""What a paper reports beside what was measured here, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hguide.experiments.ablation.results import Comparison, Estimate, Results
from hguide.experiments.paper.exports import file_name
from hguide.experiments.paper.preset import Preset
from hguide.experiments.report.markdown import escape_markdown

__all__ = [
    "AGREES",
    "NOT_COMPARED",
    "OPPOSITE",
    "UNDECIDED",
    "ComparedRow",
    "PaperTable",
    "compare",
    "other_settings",
    "reported_values",
    "settings_of",
    "verdicts",
]

NOT_PRINTED = "value not available"
AGREES, OPPOSITE, UNDECIDED, NOT_COMPARED = "same direction", "opposite direction", "undecided", ""

COUNTERPARTS: Mapping[str, tuple[str, ...]] = {
    "FID": ("kd", "fd"),
    "IS": ("score",),
    "sFID": ("sfd",),
    "precision": ("precision",),
    "recall": ("recall",),
    "power ratio": ("spectrum_distance",),
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
        seeds = self.results.seeds
        measures = (
            "measures: FID, IS and sFID of the paper stand on the Inception network; KD, FD, sFD and score here on "
            f"{self.results.provenance.get('features', {}).get('name', 'the bundled feature network')}: compare "
            "directions, never numbers"
        )
        images = f"{seeds['count']:,} here (seeds {seeds['text']})"
        return [*other_settings(self.preset, self.model, images), measures, *filter(None, [self.preset.note])]

    def text(self) -> str:
        """Markdown: one line per row and column of the paper, what differs, what a published checkpoint should give."""
        head = ["row", "measure", "reported", "measured here", "less the baseline's", "direction", "what differs"]
        lines = [f"# {self.preset.title}", "", f"{self.preset.source}, preset `{self.preset.name}`.", ""]
        lines += _markdown([head, *(self._cells(row, column) for row in self.rows for column in self._columns())])
        lines += ["", "What differs:", "", *(f"- {escape_markdown(line)}" for line in self.differs())]
        return "\n".join([*lines, *self._published()]) + "\n"

    def json(self) -> dict[str, Any]:
        """Preset, rows and verdicts as plain values."""
        return {
            "preset": asdict(self.preset),
            "model": self.model,
            "differs": self.differs(),
            "rows": [asdict(row) for row in self.rows],
        }

    def _columns(self) -> Sequence[str]:
        reported = self.preset.reported
        return reported["columns"] or reported.get("asks", ("FID", "IS"))

    def _cells(self, row: ComparedRow, column: str) -> list[str]:
        label = row.label + (" (baseline)" if row.label == self.preset.baseline else "")
        differs = settings_of(self.preset, self.model)
        tool = self.preset.reported.get("elsewhere", {}).get(column)
        keys = [key for key in COUNTERPARTS.get(column, ()) if key in self._names()]
        if tool is not None:
            measured, less = f"not measurable here: {tool} on exports/{file_name(row.label)}", "–"
        elif column == "seconds":
            measured = "–" if row.seconds is None else f"{row.seconds:.3g} s per image"
            base = next((each.seconds for each in self.rows if each.label == self.preset.baseline), None)
            less = f"times {row.seconds / base:.3f}" if row.seconds and base and row.difference else "–"
            differs = f"in blocks, not one by one; {differs}"
        else:
            measured = "<br>".join(f"{self._names()[key]} {_estimate(row.measured.get(key))}" for key in keys) or "–"
            less = "<br>".join(_estimate(row.difference.get(key)) for key in keys) if row.difference else "–"
            differs = f"{', '.join(self._names()[key] for key in keys) or 'nothing'} for {column}; {differs}"
        verdict = row.verdicts.get(column, NOT_COMPARED)
        reported = reported_values(row.reported, column) or NOT_PRINTED
        return [*map(escape_markdown, (label, column)), reported, measured, less, verdict, escape_markdown(differs)]

    def _names(self) -> dict[str, str]:
        return {each.key: each.name for each in self.results.measures}

    def _published(self) -> list[str]:
        published = self.preset.published
        if not published.get("model"):
            return []
        load = f" --load '{published['load']}' --prompts PROMPTS.txt" if published.get("load") else ""
        # A benchmark of prompts has as many seeds as prompts.
        last = published.get("images", 50_000) - 1 if "images" in published or not load else "N"
        command = f"hguide paper {self.preset.name} --model {published['model']}{load} --seeds 0-{last}"
        lines = [
            "",
            f"With the published checkpoint: `{command} --reference REFERENCE.npz --npz`, then the evaluator of the "
            "paper on the files that it writes.",
        ]
        return lines + ([f"Expected: {published['tolerance']}."] if published.get("tolerance") else [])


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


def reported_values(reported: Mapping[str, Mapping[str, float]], column: str) -> str:
    """What the paper's models are reported to have in a column, one a line; empty where nothing is printed."""
    return "<br>".join(f"{model}: {each[column]:g}" for model, each in reported.items() if column in each)


def settings_of(preset: Preset, model: str) -> str:
    """The model here for the paper's, and the filters."""
    return f"{model} for {preset.reported['models']}; {_filters(preset.sampler)}"


def other_settings(preset: Preset, model: str, images: str) -> list[str]:
    """What is different from the paper's setting whatever is measured, one line each.

    Args:
        preset: what was run.
        model: that was measured.
        images: how many, and which.
    """
    reported = preset.reported
    there = f"{reported['images']:,}" if reported["images"] else "not stated"
    return [
        f"model: {reported['models']} on {reported['data']} in the paper, {model} here",
        f"images per row: {there} in the paper, {images}",
        f"sampler: here {_filters(preset.sampler)}",
        f"strength of the method: no printed value is known; here {_parameters(preset.parameters)}",
    ]


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


def _filters(sampler: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sampler.items()) or "all tokens"


def _estimate(value: Estimate | Comparison | None) -> str:
    return "–" if value is None else f"{value.estimate:.4g} [{value.low:.4g}, {value.high:.4g}]"


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]]

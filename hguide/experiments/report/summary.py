"""The findings in a paragraph: the baseline, and which cells differ from it beyond the intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from hguide.experiments.ablation.results import Comparison, MeasureInfo, Results
from hguide.experiments.report.differences_table import verdict
from hguide.experiments.report.measures_table import REMARKS
from hguide.experiments.report.table import BETTER, WORSE, letters

__all__ = ["summary"]

HEADLINES = ("kd", "accuracy")
REPEATS: Mapping[str, str] = {"kd": "kd_squeezenet", "fd": "fd_squeezenet"}
"""Measure -> the same on an independent network."""


def summary(results: Results) -> tuple[str, ...]:
    """Sentences: what was run, what differs from the baseline, and whether the independent network agrees."""
    sentences = [_run(results)]
    baseline = next((each for each in results.cells if each.hash == results.baseline), None)
    if baseline is None or not results.comparisons:
        return (*sentences, "Nothing was compared with a baseline.")
    name = letters(each.hash for each in results.cells)[baseline.hash]
    sentences.append(f"The baseline is {name}, {baseline.label}; differences from it are paired by seed.")
    for measure in _headlines(results):
        sentences.append(_differences(results, measure))
    sentences += [_repeat(results, key, REPEATS[key]) for key in REPEATS if _compared(results, REPEATS[key])]
    return tuple(sentences)


def _run(results: Results) -> str:
    statuses = Counter(each.status for each in results.cells)
    count = len(results.cells)
    parts = [f"{statuses[key]} {word}" for key, word in REMARKS.items() if statuses[key]]
    finished = f"; {statuses['done']} finished, {', '.join(parts)}" if parts else ""
    images = f"{results.seeds['count']} images" if results.seeds.get("count") else "images"
    seeds = f"seeds {results.seeds['text']}" if results.seeds.get("text") else ""
    classes = f"{results.classes['count']} classes" if results.classes.get("count") else ""
    where = ", ".join(filter(None, (seeds, classes)))
    return f"{count} cell{'s' * (count != 1)} of {images} each{f' ({where})' * bool(where)}{finished}."


def _headlines(results: Results) -> Sequence[MeasureInfo]:
    directed = [each for each in results.measures if each.higher_is_better is not None]
    return [each for each in directed if each.key in HEADLINES] or directed[:2]


def _compared(results: Results, key: str) -> dict[str, Comparison]:
    """Comparisons of a measure by cell, in the order of the cells."""
    found = {each.cell: each for each in results.comparisons if each.measure == key and each.cell != each.against}
    return {cell.hash: found[cell.hash] for cell in results.cells if cell.hash in found}


def _differences(results: Results, measure: MeasureInfo) -> str:
    names = letters(each.hash for each in results.cells)
    groups: dict[str, list[str]] = {BETTER: [], WORSE: [], "": []}
    for cell, comparison in _compared(results, measure.key).items():
        groups[verdict(comparison, measure)].append(names[cell])
    words = {BETTER: "better than the baseline", WORSE: "worse", "": "not told apart from it"}
    parts = [f"{', '.join(cells)} {words[key]}" for key, cells in groups.items() if cells]
    arrow = "higher is better" if measure.higher_is_better else "lower is better"
    return f"In {measure.name} ({arrow}): {'; '.join(parts) or 'not compared'}."


def _repeat(results: Results, key: str, repeat: str) -> str:
    """Whether differences that exclude zero have the same sign on the independent network."""
    names = letters(each.hash for each in results.cells)
    infos = {each.key: each for each in results.measures}
    first, second = _compared(results, key), _compared(results, repeat)
    judged = [cell for cell, each in first.items() if each.excludes_zero and cell in second]
    opposed = [cell for cell in judged if (first[cell].estimate > 0) != (second[cell].estimate > 0)]
    if not judged:
        return f"No difference in {infos[key].name} excludes zero: nothing for the independent network to confirm."
    head = f"Where a difference in {infos[key].name} excludes zero, the independent network ({infos[repeat].network}) "
    if opposed:
        return f"{head}does NOT agree in sign for {', '.join(names[each] for each in opposed)}."
    return f"{head}agrees in sign ({len(judged)} of {len(judged)} cells)."

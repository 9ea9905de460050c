"""The figures of the papers that are no ablation: frequencies, evenness and divergence by step, and completion."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from hguide.errors import ConfigError
from hguide.experiments.measures.bootstrap import Interval
from hguide.experiments.paper.completion import Completions, complete, completion_difference, completion_interval
from hguide.experiments.paper.frequency import StepPowers, band_difference, band_interval, step_powers
from hguide.experiments.paper.preset import Preset, Row
from hguide.experiments.paper.spread import QUANTITIES, StepSpreads, spread_difference, spread_interval, step_spreads
from hguide.images import write_bytes
from hguide.sampling import Sampler

if TYPE_CHECKING:
    from hguide.experiments.paper.run import PaperOptions
    from hguide.generator import ScaleGenerator

__all__ = ["AnalysisTable", "run_analysis"]

CROP = 64


@dataclass(frozen=True)
class AnalysisTable:
    """Numbers per step and row, with differences from the baseline.

    Attributes:
        preset: what was run.
        model: that was measured.
        first: head of the first column.
        values: (place in the first column, row label, quantity, interval, paired difference or None).
        note: on what was measured.
        whole: place in the first column that stands for all others, if there is one.
    """

    preset: Preset
    model: str
    first: str
    values: tuple[tuple[str, str, str, Interval, Interval | None], ...]
    note: str
    whole: str = ""
    ok: bool = True

    def text(self) -> str:
        """Markdown."""
        lines = [
            f"# {self.preset.title}",
            "",
            f"{self.preset.source}, preset `{self.preset.name}`, on {self.model}.",
            "",
        ]
        lines += [f"| {self.first} | row | quantity | measured | less the baseline's |", "|---|---|---|---|---|"]
        for place, label, quantity, interval, difference in self.values:
            less = "–" if difference is None else f"{difference}{' *' if difference.excludes_zero else ''}"
            lines.append(f"| {place} | {label} | {quantity} | {interval} | {less} |")
        lines += ["", "`*`: the 95 % interval of the paired difference excludes zero.", "", f"- {self.note}"]
        return "\n".join([*lines, f"- {self.preset.note}"]) + "\n"

    def json(self) -> dict[str, Any]:
        """As plain values."""
        names = ("place", "row", "quantity", "interval", "difference")
        rows = [
            dict(zip(names, (*each[:3], asdict(each[3]), each[4] and asdict(each[4])), strict=True))
            for each in self.values
        ]
        return {"preset": asdict(self.preset), "model": self.model, "rows": rows}


def run_analysis(preset: Preset, options: PaperOptions, note: Callable[[str], None]) -> AnalysisTable:
    """Run the analysis of a preset and write paper.md, paper.json, and the figure as PNG and SVG.

    Raises:
        ConfigError: several processes, or completion without pictures.
    """
    from hguide.experiments.paper.analysis_figure import analysis_figure
    from hguide.experiments.trace.figure_style import write_figure
    from hguide.load import load

    if options.devices * options.num_nodes > 1:
        raise ConfigError(f"{preset.name} runs in one process, got {options.devices} x {options.num_nodes}.")
    generator = load(options.model, device=options.device)
    table = {"frequency": _frequency, "completion": _completion, "spread": _spread}[preset.kind](
        preset, generator, options
    )
    options.out.mkdir(parents=True, exist_ok=True)
    write_bytes(options.out / "paper.md", table.text().encode())
    write_bytes(options.out / "paper.json", (json.dumps(table.json(), indent=1) + "\n").encode())
    for path in write_figure(analysis_figure(table), options.out / "figure"):
        note(str(path))
    return table


def _progress(rows: Sequence[Row], each: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=len(rows) * each, unit="image", file=sys.stderr)


def _frequency(preset: Preset, generator: ScaleGenerator, options: PaperOptions) -> AnalysisTable:
    from hguide.cli.lists import conditions, seeds

    chosen, given = seeds(options.seeds), conditions(generator, None, None)
    labels = [given[seed % len(given)] for seed in chosen]
    found: dict[str, StepPowers] = {}
    with _progress(preset.rows, len(chosen)) as bar:
        for row in preset.rows:
            sampler = Sampler(temperature=row.temperature, **preset.sampler)
            found[row.label] = step_powers(generator, labels, row.guidance, sampler, chosen, progress=bar.update)
    values = []
    baseline = found[preset.baseline]
    for step in range(1, generator.count):
        (h0, w0), (h1, w1) = (generator.scales[k].grid for k in (step - 1, step))
        for row in preset.rows:
            for band in ("below", "above"):
                mine = found[row.label]
                if not torch.isfinite(getattr(mine.change(), band)[step - 1]):
                    continue
                other = None if mine is baseline else band_difference(mine, baseline, step, band, options.replicates)
                values.append(
                    (
                        f"{h0}x{w0} to {h1}x{w1}",
                        row.label,
                        f"change {band} Nyquist",
                        band_interval(mine, step, band, options.replicates),
                        other,
                    )
                )
    text = (
        "change of the logarithm of the root-mean-square magnitude of the decoded picture, averaged over radial bins "
        f"at and below, or above, the Nyquist frequency of the earlier grid; {len(chosen)} seeds, bootstrap over seeds."
    )
    return AnalysisTable(preset, options.model, "step", tuple(values), text)


def _spread(preset: Preset, generator: ScaleGenerator, options: PaperOptions) -> AnalysisTable:
    from hguide.cli.lists import conditions, seeds

    chosen, given = seeds(options.seeds), conditions(generator, None, None)
    labels = [given[seed % len(given)] for seed in chosen]
    found: dict[str, StepSpreads] = {}
    with _progress(preset.rows, len(chosen)) as bar:
        for row in preset.rows:
            sampler = Sampler(temperature=row.temperature, **preset.sampler)
            found[row.label] = step_spreads(generator, labels, row.guidance, sampler, chosen, progress=bar.update)
    whole, values, baseline = "all steps, by tokens", [], found[preset.baseline]
    for step in (*range(generator.count), None):
        place = whole if step is None else "{}x{}".format(*generator.scales[step].grid)
        for quantity in QUANTITIES:
            for row in preset.rows:
                mine = found[row.label]
                if not mine.defined(quantity, step):
                    continue
                other = None
                if mine is not baseline and baseline.defined(quantity, step):
                    other = spread_difference(mine, baseline, quantity, step, options.replicates)
                interval = spread_interval(mine, quantity, step, options.replicates)
                values.append((place, row.label, quantity, interval, other))
    text = (
        "evenness and divergence of the peaks max_v n over the tokens, logits as they are: raw, n = c - u; scaled, "
        "what the guidance makes of it, l' - u. Divergence (Jensen-Shannon, in bits) from two references, since that "
        f"of the paper is not known. {len(chosen)} seeds, bootstrap over seeds."
    )
    return AnalysisTable(preset, options.model, "step", tuple(values), text, whole)


def _completion(preset: Preset, generator: ScaleGenerator, options: PaperOptions) -> AnalysisTable:
    from hguide.experiments.features import load_features
    from hguide.experiments.measures.perceptual_distance import perceptual_distance
    from hguide.experiments.training.data import crop_centres, load_scenes, to_unit

    if options.data is None:
        raise ConfigError(f"{preset.name} completes real pictures: give --data FOLDER with the test scenes.")
    scenes = load_scenes(options.data, "test")
    images = to_unit(crop_centres(scenes, CROP))
    # Refuses families without an encoder, and models of another size, before any work.
    generator.encode(images[:1])
    network, _ = load_features()
    distance = partial(perceptual_distance, maps=network.feature_map)
    labels, prefixes = scenes.labels.tolist(), range(1, generator.count)
    found: dict[str, Completions] = {}
    with _progress(preset.rows, len(images) * len(prefixes)) as bar:
        for row in preset.rows:
            sampler = Sampler(temperature=row.temperature, **preset.sampler)
            found[row.label] = complete(
                generator,
                images,
                labels,
                scenes.sources,
                row.guidance,
                sampler,
                distance,
                prefixes=prefixes,
                progress=bar.update,
            )
    baseline = found[preset.baseline]
    values = []
    for prefix in prefixes:
        for row in preset.rows:
            mine = found[row.label]
            other = None if mine is baseline else completion_difference(mine, baseline, prefix, options.replicates)
            values.append(
                (
                    f"{prefix} of {generator.count}",
                    row.label,
                    "distance",
                    completion_interval(mine, prefix, options.replicates),
                    other,
                )
            )
    text = f"perceptual distance on the bundled feature network, {len(images)} test pictures, bootstrap over scenes."
    return AnalysisTable(preset, options.model, "given scales", tuple(values), text)

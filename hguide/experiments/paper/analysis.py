"""The figures of the papers that are no ablation: frequencies, evenness and divergence by step, and completion."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from hguide.errors import ConfigError
from hguide.experiments.measures.bootstrap import Interval
from hguide.experiments.paper.comparison import other_settings, reported_values, settings_of
from hguide.experiments.paper.completion import Completions, complete, completion_difference, completion_interval
from hguide.experiments.paper.frequency import band_difference, band_interval, step_powers
from hguide.experiments.paper.preset import Preset, Row
from hguide.experiments.paper.spread import QUANTITIES, spread_difference, spread_interval, step_spreads
from hguide.experiments.report.markdown import escape_markdown
from hguide.images import write_bytes
from hguide.lists import conditions, seeds
from hguide.sampling import Sampler

if TYPE_CHECKING:
    from hguide.experiments.paper.run import PaperOptions
    from hguide.experiments.training.data import Scenes
    from hguide.generator import ScaleGenerator

__all__ = ["AnalysisTable", "run_analysis"]

_T = TypeVar("_T")

CROP = 64
DRAWN = "only drawn; value not available"


@dataclass(frozen=True)
class AnalysisTable:
    """Numbers per step and row, with differences from the baseline.

    Attributes:
        preset: what was run.
        model: that was measured.
        first: head of the first column.
        values: (place in the first column, row label, quantity, interval, paired difference or None).
        images: number and kind of the images of a row.
        note: on what was measured.
        whole: place in the first column that stands for all others, if there is one.
    """

    preset: Preset
    model: str
    first: str
    values: tuple[tuple[str, str, str, Interval, Interval | None], ...]
    images: str
    note: str
    whole: str = ""
    ok: bool = True

    def reported(self, label: str, quantity: str) -> str:
        """What the paper prints of a row, or that it only draws it."""
        rows = {row.label: row.reported for row in self.preset.rows}
        return reported_values(rows[label], quantity) or DRAWN

    def differs(self) -> list[str]:
        """What is different from the paper's setting."""
        measures = f"measures: {self.preset.reported['measure']}"
        general = other_settings(self.preset, self.model, self.images)
        return [*general, measures, *filter(None, [self.note, self.preset.note])]

    def text(self) -> str:
        """Markdown: a line per place, row and quantity: reported, measured, and what differs."""
        head = f"| {self.first} | row | quantity | reported | measured here | less the baseline's | what differs |"
        differs = escape_markdown(f"{self.preset.reported['measure']}; {settings_of(self.preset, self.model)}")
        lines = [f"# {self.preset.title}", "", f"{self.preset.source}, preset `{self.preset.name}`.", ""]
        lines += [head, f"|{'---|' * 7}"]
        for place, label, quantity, interval, difference in self.values:
            less = "–" if difference is None else f"{difference}{' *' if difference.excludes_zero else ''}"
            cells = (place, label, quantity, self.reported(label, quantity), interval, less, differs)
            lines.append(f"| {' | '.join(map(str, cells))} |")
        lines += ["", "`*`: the 95 % interval of the paired difference excludes zero.", "", "What differs:", ""]
        return "\n".join([*lines, *(f"- {escape_markdown(line)}" for line in self.differs())]) + "\n"

    def json(self) -> dict[str, Any]:
        """As plain values."""
        names = ("place", "row", "quantity", "reported", "interval", "difference")
        rows = [
            dict(
                zip(
                    names,
                    (*each[:3], self.reported(*each[1:3]), asdict(each[3]), each[4] and asdict(each[4])),
                    strict=True,
                )
            )
            for each in self.values
        ]
        return {"preset": asdict(self.preset), "model": self.model, "differs": self.differs(), "rows": rows}


def run_analysis(preset: Preset, options: PaperOptions, note: Callable[[str], None]) -> AnalysisTable:
    """Run the analysis of a preset and write paper.md, paper.json, and the figure as PNG and SVG.

    Raises:
        ConfigError: several processes, completion without pictures, or prompts that are not the model's.
        CheckpointError: a model, or a text encoder, that cannot be loaded.
    """
    from hguide.experiments.paper.analysis_figure import analysis_figure
    from hguide.experiments.trace.figure_style import write_figure
    from hguide.load import load

    if options.devices * options.num_nodes > 1:
        raise ConfigError(f"{preset.name} runs in one process, got {options.devices} x {options.num_nodes}.")
    generator = load(options.model, device=options.device, **options.load)
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


def _rows_of_seeds(
    preset: Preset, generator: ScaleGenerator, options: PaperOptions, measure: Callable[..., _T]
) -> dict[str, _T]:
    """What is measured of each row while its seeds are sampled; seed s has the class or prompt s mod their number."""
    chosen, given = seeds(options.seeds), conditions(generator, None, options.prompts)
    labels = [given[seed % len(given)] for seed in chosen]
    found: dict[str, _T] = {}
    with _progress(preset.rows, len(chosen)) as bar:
        for row in preset.rows:
            sampler = Sampler(temperature=row.temperature, **preset.sampler)
            found[row.label] = measure(generator, labels, row.guidance, sampler, chosen, progress=bar.update)
    return found


def _frequency(preset: Preset, generator: ScaleGenerator, options: PaperOptions) -> AnalysisTable:
    found = _rows_of_seeds(preset, generator, options, step_powers)
    values, baseline = [], found[preset.baseline]
    for step in range(1, generator.count):
        (h0, w0), (h1, w1) = (generator.scales[k].grid for k in (step - 1, step))
        for label, mine in found.items():
            for band in ("below", "above"):
                if not torch.isfinite(getattr(mine.change(), band)[step - 1]):
                    continue
                other = None if mine is baseline else band_difference(mine, baseline, step, band, options.replicates)
                interval = band_interval(mine, step, band, options.replicates)
                values.append((f"{h0}x{w0} to {h1}x{w1}", label, f"change {band} Nyquist", interval, other))
    text = (
        "change of the logarithm of the root-mean-square magnitude of the decoded picture, averaged over radial bins "
        "at and below, or above, the Nyquist frequency of the earlier grid; bootstrap over seeds."
    )
    return AnalysisTable(preset, options.model, "step", tuple(values), _sampled(baseline.seeds, options), text)


def _spread(preset: Preset, generator: ScaleGenerator, options: PaperOptions) -> AnalysisTable:
    found = _rows_of_seeds(preset, generator, options, step_spreads)
    whole, values, baseline = "all steps, by tokens", [], found[preset.baseline]
    for step in (*range(generator.count), None):
        place = whole if step is None else "{}x{}".format(*generator.scales[step].grid)
        for quantity in QUANTITIES:
            for label, mine in found.items():
                if not mine.defined(quantity, step):
                    continue
                other = None
                if mine is not baseline and baseline.defined(quantity, step):
                    other = spread_difference(mine, baseline, quantity, step, options.replicates)
                values.append(
                    (place, label, quantity, spread_interval(mine, quantity, step, options.replicates), other)
                )
    text = (
        "evenness and divergence of the peaks max_v n over the tokens, logits as they are: raw, n = c - u; scaled, "
        "what the guidance makes of it, l' - u. Divergence (Jensen-Shannon, in bits) from two references, since that "
        "of the paper is not known. Bootstrap over seeds."
    )
    return AnalysisTable(preset, options.model, "step", tuple(values), _sampled(baseline.seeds, options), text, whole)


def _sampled(chosen: Sequence[int], options: PaperOptions) -> str:
    return f"{len(chosen):,} here (seeds {options.seeds})"


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
    given, prefixes = _of_classes(generator, options, scenes), range(1, generator.count)
    found: dict[str, Completions] = {}
    with _progress(preset.rows, len(images) * len(prefixes)) as bar:
        for row in preset.rows:
            sampler = Sampler(temperature=row.temperature, **preset.sampler)
            found[row.label] = complete(
                generator,
                images,
                given,
                scenes.sources,
                row.guidance,
                sampler,
                distance,
                prefixes=prefixes,
                progress=bar.update,
            )
    values, baseline = [], found[preset.baseline]
    for prefix in prefixes:
        for label, mine in found.items():
            other = None if mine is baseline else completion_difference(mine, baseline, prefix, options.replicates)
            interval = completion_interval(mine, prefix, options.replicates)
            values.append((f"{prefix} of {generator.count}", label, "distance", interval, other))
    many = f"{len(images):,} test pictures of land use here"
    return AnalysisTable(preset, options.model, "given scales", tuple(values), many, "bootstrap over scenes.")


def _of_classes(generator: ScaleGenerator, options: PaperOptions, scenes: Scenes) -> list[Any]:
    """The condition of each picture: its class, or the prompt given for its class or for all of them."""
    if options.prompts is None:
        return generator.conditions(scenes.labels.tolist(), len(scenes.labels))
    given = conditions(generator, None, options.prompts)
    if len(given) not in (1, len(scenes.classes)):
        raise ConfigError(
            f"{options.preset}: one prompt for all pictures, or one per class of theirs ({len(scenes.classes)}, in the "
            f"order {', '.join(scenes.classes[:3])}, ...), got {len(given)}."
        )
    return [given[label % len(given)] for label in scenes.labels.tolist()]

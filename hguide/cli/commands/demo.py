"""`hguide demo`: the main job on the bundled model."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hguide.cli.lenders import add_lenders
from hguide.cli.options import add_model, add_sampling
from hguide.lists import Listed

if TYPE_CHECKING:
    from torch import Tensor

    from hguide.cli.batches import Pair
    from hguide.cli.classify import Classifier
    from hguide.cli.residual import StepTrace
    from hguide.generator import ScaleGenerator
    from hguide.guidance import Guidance
    from hguide.sampling import Sampler

HELP = """
The main job: the same seeds and classes once per guidance. Writes grid.png (rows are guidances, columns classes),
strip.png (one image growing over the scales, with the energy of the semantic residual) and demo.json (everything
needed to repeat it) into the folder --out, and prints the numbers: class accuracy and mean class score of the shipped
classifier, seconds per image, seconds in guidance.
"""
EXAMPLES = """
hguide demo
hguide demo --classes airplane,beach,forest --seeds 0-7 --out three
hguide demo --guidances "none; cfg(2.0); cfg(2.0) | ssg(0.5, schedule=cosine)"
"""
SCHEMA = "hguide.demo/1"
FILES = ("grid.png", "strip.png", "demo.json")
GUIDANCES = "none; cfg(3.0); cfg(3.0) | ssg(0.5)"


@dataclass(frozen=True)
class Measured:
    """The numbers of one guidance.

    Attributes:
        guidance: its text.
        images: how many.
        accuracy: share of images that the classifier names as asked; None without a classifier of these classes.
        score: mean probability of the class asked for.
        seconds_per_image: sampling and decoding.
        guidance_seconds_per_image: of these, in the guidance's arithmetic.
    """

    guidance: str
    images: int
    accuracy: float | None
    score: float | None
    seconds_per_image: float
    guidance_seconds_per_image: float


def add_arguments(parser: Any) -> None:
    """Options of `hguide demo`."""
    add_model(parser)
    parser.add_argument(
        "--guidances", type=str | list[str], default=GUIDANCES, help="one per row: a list, or a text with ; between."
    )
    parser.add_argument("--classes", type=Listed | None, default=None, help="names, numbers, 0-7, a file; every one.")
    parser.add_argument("--seeds", type=Listed, default="0-2", help="each with every class: 0-2, 5, a list or a file.")
    parser.add_argument("--out", type=str, default="hguide-demo", help="folder; the files of an earlier demo give way.")
    parser.add_argument(
        "--strip-class", type=int | str | None, default=None, help="class of the strip; the middle one of the list."
    )
    parser.add_argument("--pictures", type=int, default=21, help="columns of the grid; the numbers are of all images.")
    add_lenders(parser)
    add_sampling(parser, batch_size=32)


def run(options: Any) -> None:
    """Sample, measure, draw, write."""
    from hguide import lists
    from hguide.cli.classify import classifier_of
    from hguide.cli.earlier import carries, refuse_foreign
    from hguide.cli.lenders import lenders_of
    from hguide.cli.options import load_model, sampler_of, writable_folder
    from hguide.cli.residual import trace
    from hguide.errors import ConfigError
    from hguide.guidance import parse
    from hguide.images import write_bytes
    from hguide.plan import plan

    guidances = [parse(text) for text in lists.guidance_texts(options.guidances)]
    sampler, seeds = sampler_of(options), lists.seeds(options.seeds)
    if options.pictures < 1:
        raise ConfigError(f"pictures is at least 1, got {options.pictures}.")
    out = writable_folder(options.out)
    files = [out / name for name in FILES]
    refuse_foreign(files, [file for file in files if carries(file, SCHEMA)], "demo")
    generator = load_model(options)
    models = lenders_of(options, generator, guidances)
    for guidance in guidances:
        plan(generator, guidance, models=models)
    classes = lists.conditions(generator, options.classes)
    classifier = classifier_of(generator)
    growing = (
        classes[len(classes) // 2] if options.strip_class is None else generator.conditions(options.strip_class, 1)[0],
        seeds[0],
    )
    pairs = [(condition, seed) for seed in seeds for condition in classes]
    out.mkdir(parents=True, exist_ok=True)
    # The strip first: it also warms up what is compiled or allocated once.
    steps = trace(generator, growing, guidances[-1], sampler, models)
    runs = _runs(generator, pairs, guidances, sampler, models, classifier, options)
    measured = [each for each, _ in runs]
    _draw_grid(out / "grid.png", generator, pairs[: options.pictures], runs)
    _draw_strip(out / "strip.png", generator, growing, guidances[-1], steps)
    record = _record(generator, measured, classes, seeds, sampler, models, classifier, options)
    record["residual"] = {
        "guidance": str(guidances[-1]),
        "class": growing[0],
        "seed": growing[1],
        "steps": _plain(steps),
    }
    write_bytes(out / "demo.json", (json.dumps(record, indent=2) + "\n").encode())
    print(_table(measured))
    print(f"\n{out / 'grid.png'}\n{out / 'strip.png'}\n{out / 'demo.json'}")


def _runs(
    generator: ScaleGenerator,
    pairs: Sequence[Pair],
    guidances: Sequence[Guidance],
    sampler: Sampler,
    models: Mapping[str, ScaleGenerator],
    classifier: Classifier | None,
    options: Any,
) -> list[tuple[Measured, Tensor]]:
    import torch
    from tqdm import tqdm

    from hguide.cli.batches import batches, sample_batches
    from hguide.cli.options import batch_size_of
    from hguide.experiments.bench.timed_guidance import TimedGuidance
    from hguide.experiments.bench.timing import Spans
    from hguide.lists import class_numbers

    size = batch_size_of(options, generator, guidances, models, wanted=len(pairs))
    parts = batches(generator, pairs, size, options.deterministic)
    labels = class_numbers(generator, [condition for condition, _ in pairs])
    found = []
    with tqdm(total=len(pairs) * len(guidances), unit="image", file=sys.stderr) as progress:
        for guidance in guidances:
            progress.set_description(str(guidance))
            spans, images = Spans(generator.device), []
            started = time.perf_counter()
            for batch in sample_batches(generator, parts, TimedGuidance(guidance, spans), sampler, models=models):
                images.append(batch.images.cpu())
                progress.update(len(batch.pairs))
            seconds = (time.perf_counter() - started) / len(pairs)
            whole = torch.cat(images)
            seen = classifier.recognise(whole, labels) if classifier and labels is not None else None
            accuracy, score = (seen.accuracy, seen.score) if seen else (None, None)
            share = spans.total_ms() / 1e3 / len(pairs)
            found.append((Measured(str(guidance), len(pairs), accuracy, score, seconds, share), whole))
    return found


def _draw_grid(
    path: Path, generator: ScaleGenerator, pairs: Sequence[Pair], runs: Sequence[tuple[Measured, Tensor]]
) -> None:
    from hguide.cli.sheet import Row, labelled_sheet
    from hguide.images import to_uint8, write_png
    from hguide.lists import class_name

    several = len({seed for _, seed in pairs}) > 1
    columns = [class_name(generator, c) + (f"\nseed {seed}" if several else "") for c, seed in pairs]
    rows = [Row(_label(each.guidance), _notes(each), to_uint8(images[: len(pairs)])) for each, images in runs]
    shown = "class and seed" if several else f"one per class, seed {pairs[0][1]}"
    title = f"{generator.name}: the same seeds under {len(rows)} guidances"
    subtitle = f"columns: {shown}; numbers on the left are of all {runs[0][0].images} images of a row"
    pixels = labelled_sheet(title, subtitle, rows, columns)
    write_png(path, pixels, {"hguide": json.dumps({"schema": SCHEMA, "guidances": [m.guidance for m, _ in runs]})})


def _label(guidance: str) -> str:
    return "no guidance" if guidance == "none" else guidance


def _notes(measured: Measured) -> tuple[str, ...]:
    timing = f"{1000 * measured.seconds_per_image:.3g} ms per image"
    if measured.accuracy is None or measured.score is None:
        return (timing,)
    return f"accuracy {measured.accuracy:.2f}", f"class score {measured.score:.2f}", timing


def _draw_strip(
    path: Path, generator: ScaleGenerator, pair: Pair, guidance: Guidance, steps: Sequence[StepTrace]
) -> None:
    from hguide.cli.residual import prior_of
    from hguide.cli.strip import strip
    from hguide.guidance import text_of
    from hguide.images import write_png
    from hguide.lists import class_name

    title = f"{class_name(generator, pair[0])}, seed {pair[1]}, growing over {len(steps)} scales"
    subtitle = f"{generator.name}, {guidance}; the residual is l - P l' with P = {text_of(prior_of(guidance))}"
    write_png(
        path, strip(title, subtitle, steps), {"hguide": json.dumps({"schema": SCHEMA, "guidance": str(guidance)})}
    )


def _record(
    generator: ScaleGenerator,
    measured: Sequence[Measured],
    classes: Sequence[Any],
    seeds: Sequence[int],
    sampler: Sampler,
    models: Mapping[str, ScaleGenerator],
    classifier: Classifier | None,
    options: Any,
) -> dict[str, Any]:
    from hguide.lists import class_name
    from hguide.provenance import device_facts, model_hash, sampler_facts, versions

    return {
        "schema": SCHEMA,
        "model": {"name": options.model, "hash": model_hash(generator), "dtype": options.dtype, "load": options.load},
        "lenders": {name: model_hash(lender) for name, lender in models.items()},
        "results": [asdict(each) for each in measured],
        "sampler": sampler_facts(sampler),
        "classes": list(classes),
        "class_names": [class_name(generator, condition) for condition in classes],
        "seeds": list(seeds),
        "order": "every class with the first seed, then with the next",
        "batch_size": options.batch_size,
        "deterministic": options.deterministic,
        "classifier": {"sha256": classifier.sha256} if classifier else None,
        "device": device_facts(generator.device),
        "versions": versions(),
    }


def _plain(steps: Sequence[StepTrace]) -> list[dict[str, Any]]:
    return [{"step": s.index, "grid": list(s.grid), "energy": s.energy, "share": s.share} for s in steps]


def _table(measured: Sequence[Measured]) -> str:
    wide = max(8, *(len(each.guidance) for each in measured))
    lines = [f"{'guidance':<{wide}}  images  accuracy  class score  ms/image  ms in guidance"]
    for each in measured:
        accuracy = "-" if each.accuracy is None else f"{each.accuracy:.3f}"
        score = "-" if each.score is None else f"{each.score:.3f}"
        inside = 1000 * each.guidance_seconds_per_image
        share = 100 * each.guidance_seconds_per_image / each.seconds_per_image
        lines.append(
            f"{each.guidance:<{wide}}  {each.images:6d}  {accuracy:>8}  {score:>11}  "
            f"{1000 * each.seconds_per_image:8.1f}  {inside:8.2f} ({share:.1f} %)"
        )
    return "\n".join(lines)

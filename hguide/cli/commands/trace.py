"""`hguide trace`: what guidance does at each step."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hguide.cli.lenders import add_lenders
from hguide.cli.options import add_model, add_sampling
from hguide.lists import Listed

if TYPE_CHECKING:
    from hguide.cli.batches import Pair
    from hguide.experiments.trace.records import StepRow, TraceOptions
    from hguide.generator import ScaleGenerator
    from hguide.guidance import Guidance
    from hguide.sampling import Sampler

HELP = """
Samples images and looks at every step: how large the guidance signal is, how evenly it lies over the tokens, how it
moves from step to step, what it does to the entropy, how many candidates the filters leave, and the energy of the
semantic residual by band of spatial frequency. Writes trace.json (every number, with its definition), curves.png and
.svg, and heat.png and .svg (the signal over the growing image) into the folder --out, and prints a table.
"""
EXAMPLES = """
hguide trace --guidance "cfg(3.0) | ssg(0.5)" --classes airplane,beach --seeds 0-7
hguide trace --guidance "igg(3.0)" --signal contrast --gauge raw --reference final --out igg
hguide trace --guidance "cfg(2) | autoguidance(0.5)" --models weak=small.safetensors
"""
FILES = ("trace.json", "curves.png", "curves.svg", "heat.png", "heat.svg")


def add_arguments(parser: Any) -> None:
    """Options of `hguide trace`."""
    add_model(parser)
    parser.add_argument("--guidance", type=str, default="cfg(3.0) | ssg(0.5)", help="text form; none for none.")
    parser.add_argument("--classes", type=Listed | None, default=None, help="names, numbers, 0-7, a file; every one.")
    parser.add_argument("--prompts", type=str | list[str] | None, default=None, help="a text, a list or a file.")
    parser.add_argument("--negative", type=int | str | None, default=None, help="content of the null condition.")
    parser.add_argument("--seeds", type=Listed, default="0-1", help="each with every class: 0-2, 5, a list or a file.")
    parser.add_argument("--out", type=str, default="hguide-trace", help="folder; an earlier trace gives way.")
    parser.add_argument(
        "--signal",
        type=Literal["added", "contrast", "scaled"],
        default="added",
        help="guided less given logits, given less null, or guided less null ones.",
    )
    parser.add_argument(
        "--gauge",
        type=Literal["raw", "centred", "log_softmax"],
        default="centred",
        help="constant taken off each token's logits first; raw as IGG's authors have it.",
    )
    parser.add_argument(
        "--reference",
        type=Literal["previous", "final", "uniform"],
        default="previous",
        help="what the divergence is from: the step before, the last step, or an even spread.",
    )
    parser.add_argument("--prior", type=str | None, default=None, help="of the residual; that of the guidance's ssg.")
    parser.add_argument("--bands", type=str | list[float], default="0.25,0.5,0.75", help="edges, of Nyquist.")
    parser.add_argument("--pictures", type=int, default=3, help="images with heat maps, the first ones; 0 for none.")
    add_lenders(parser)
    add_sampling(parser, batch_size=16)


def run(options: Any) -> None:
    """Sample, look, write."""
    from hguide import lists
    from hguide.cli.lenders import lenders_of
    from hguide.cli.options import load_model, sampler_of, writable_folder
    from hguide.cost import cost
    from hguide.guidance import parse
    from hguide.plan import plan

    guidance, sampler, seeds = parse(options.guidance), sampler_of(options), lists.seeds(options.seeds)
    looked_at = _looked_at(options, guidance)
    out = writable_folder(options.out)
    _make_way(out)
    generator = load_model(options)
    models = lenders_of(options, generator, [guidance])
    plan(generator, guidance, negative=options.negative, models=models)
    conditions = lists.conditions(generator, options.classes, options.prompts)
    pairs = [(condition, seed) for seed in seeds for condition in conditions]
    samples = _samples(generator, pairs, guidance, sampler, models, looked_at, options)
    out.mkdir(parents=True, exist_ok=True)
    written = _write(out, generator, pairs, samples, guidance, sampler, models, looked_at, options)
    print(f"{cost(generator, guidance, models=models)}\n")
    print(_table(samples))
    print(_remark(samples, guidance, looked_at))
    print("\n".join(map(str, written)))


def _make_way(out: Path) -> None:
    from hguide.cli.earlier import carries, refuse_foreign
    from hguide.experiments.trace.document import SCHEMA

    # The figures carry no mark; the numbers, which are written before them, stand for all.
    files = [out / name for name in FILES]
    refuse_foreign(files, files if carries(files[0], SCHEMA) else (), "trace")


def _looked_at(options: Any, guidance: Guidance) -> TraceOptions:
    from hguide.cli.residual import prior_of
    from hguide.errors import ConfigError
    from hguide.experiments.trace.records import TraceOptions
    from hguide.guidance import parse_prior

    given = options.bands.split(",") if isinstance(options.bands, str) else options.bands
    try:
        edges = tuple(float(edge) for edge in given if str(edge).strip())
    except ValueError:
        raise ConfigError(f"bands are separated by numbers as 0.25,0.5,0.75, got {options.bands!r}.") from None
    if options.pictures < 0:
        raise ConfigError(f"pictures is at least 0, got {options.pictures}.")
    return TraceOptions(
        signal=options.signal,
        gauge=options.gauge,
        reference=options.reference,
        prior=prior_of(guidance) if options.prior is None else parse_prior(options.prior),
        edges=edges,
    )


def _samples(
    generator: ScaleGenerator,
    pairs: Sequence[Pair],
    guidance: Guidance,
    sampler: Sampler,
    models: Mapping[str, ScaleGenerator],
    looked_at: TraceOptions,
    options: Any,
) -> list[list[StepRow]]:
    from tqdm import tqdm

    from hguide.cli.batches import batches, sample_batches
    from hguide.cli.options import batch_size_of
    from hguide.experiments.trace.records import Tracer

    size = batch_size_of(options, generator, [guidance], models, wanted=len(pairs))
    parts = batches(generator, pairs, size, options.deterministic)
    tracer = Tracer(generator.channels, sampler, looked_at, options.pictures)
    found: list[list[StepRow]] = []
    with tqdm(total=len(pairs), unit="image", desc=str(guidance), file=sys.stderr) as progress:
        runs = sample_batches(generator, parts, guidance, sampler, tracer, negative=options.negative, models=models)
        for batch in runs:
            found += tracer.take()
            progress.update(len(batch.pairs))
    return found


def _write(
    out: Path,
    generator: ScaleGenerator,
    pairs: Sequence[Pair],
    samples: Sequence[Sequence[StepRow]],
    guidance: Guidance,
    sampler: Sampler,
    models: Mapping[str, ScaleGenerator],
    looked_at: TraceOptions,
    options: Any,
) -> list[Path]:
    from dataclasses import asdict

    from hguide.cost import cost
    from hguide.experiments.trace.curves import curves_figure
    from hguide.experiments.trace.document import document, text
    from hguide.experiments.trace.figure_style import write_figure
    from hguide.experiments.trace.heat_maps import heat_figure
    from hguide.experiments.trace.signal import SIGNALS
    from hguide.experiments.trace.summary import summarise
    from hguide.images import write_bytes
    from hguide.lists import class_name
    from hguide.provenance import device_facts, model_hash, sampler_facts, versions

    labels = [{"condition": c, "name": class_name(generator, c), "seed": seed} for c, seed in pairs]
    about = {
        "model": {"name": options.model, "hash": model_hash(generator), "dtype": options.dtype, "load": options.load},
        "lenders": {name: model_hash(lender) for name, lender in models.items()},
        "guidance": str(guidance),
        "cost": asdict(cost(generator, guidance, models=models)),
        "sampler": sampler_facts(sampler),
        "negative": options.negative,
        "deterministic": options.deterministic,
        "batch_size": options.batch_size,
        "device": device_facts(generator.device),
        "versions": versions(),
    }
    file = out / "trace.json"
    write_bytes(file, text(document(samples, labels, looked_at, about)).encode())
    many = f"{len(pairs)} image{'s' * (len(pairs) > 1)}"
    title = f"{generator.name}: {'no guidance' if str(guidance) == 'none' else guidance}"
    spread = f"mean over {many}; shaded from the 10 % to the 90 % quantile" if len(pairs) > 1 else many
    curves = curves_figure(summarise(samples), looked_at, generator.channels, title, spread)
    names = [f"{label['name']}, seed {label['seed']}" for label in labels]
    heat = heat_figure(
        samples, names, title, f"size |n| of {SIGNALS[looked_at.signal]} at each token; each map has its own range"
    )
    return [file, *write_figure(curves, out / "curves"), *(write_figure(heat, out / "heat") if heat else [])]


def _remark(samples: Sequence[Sequence[StepRow]], guidance: Guidance, looked_at: TraceOptions) -> str:
    """What the reader should know about what is missing."""
    if any(row.strength for rows in samples for row in rows):
        return ""
    if looked_at.signal != "added":
        return f"\n{guidance} never asks for the null stream: no contrast to show, and no heat maps.\n"
    return f"\n{guidance} adds nothing to the logits: no evenness, divergence or heat maps to show.\n"


def _table(samples: Sequence[Sequence[StepRow]]) -> str:
    from hguide.experiments.trace.summary import over_steps, summarise

    heads = ("|n|", "evenness", "divergence", "entropy given", "guided", "drawn", "kept", "residual")
    names = ("strength", "evenness", "divergence", "entropy_given", "entropy_guided", "entropy_drawn", "kept", "share")
    lines = [f"{'step':>6}  " + "  ".join(f"{head:>{max(8, len(head))}}" for head in heads)]
    for step in summarise(samples):
        cells = []
        for head, name in zip(heads, names, strict=True):
            spread = step.numbers[name]
            shown = "-" if spread is None else f"{spread.mean:.1%}" if name == "share" else f"{spread.mean:.3f}"
            cells.append(f"{shown:>{max(8, len(head))}}")
        place = f"{step.grid[0]}x{step.grid[1]}" + (f".{step.call}" if step.call else "")
        lines.append(f"{place:>6}  " + "  ".join(cells))
    means = {name: over_steps(samples, name) for name in ("evenness", "divergence")}
    known = [f"{name} {value:.3f}" for name, value in means.items() if value is not None]
    return "\n".join(lines + ([f"over the steps, by tokens: {', '.join(known)}"] if known else []))

"""`hguide sample`: one PNG per condition and seed."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hguide.cli.lenders import add_lenders
from hguide.cli.options import add_model, add_sampling
from hguide.cli.parser import add_flag
from hguide.errors import ConfigError
from hguide.lists import Listed

if TYPE_CHECKING:
    from hguide.cli.batches import Pair
    from hguide.cli.settings import Settings
    from hguide.generator import ScaleGenerator

HELP = """
Samples images, one PNG per class (or prompt) and seed, named after both, with guidance, seed, model, sampler and
condition in its text chunks. The same command run again continues where it stopped: files with the same settings are
left as they are; a file with other settings stops it before anything is sampled, unless --overwrite.
--from PNG repeats a sampled image exactly and compares it with the file (exit code 1 where they differ); it takes
everything from the file but --out, --overwrite and --device.
"""
EXAMPLES = """
hguide sample --classes airplane,beach --seeds 0-7 --guidance "cfg(3.0) | ssg(0.5)"
hguide sample --classes 0-20 --seeds 0-49 --pair --out set --npz set.npz
hguide sample --model var_d16.pth --classes 207 --seeds 0-15 --guidance "cfg(4)" --top-k 900 --top-p 0.95
hguide sample --classes beach --seeds 0-7 --guidance "cfg(2) | autoguidance(0.5)" --models weak=small.safetensors
hguide sample --model hart-0.7b-1024px --load.text_encoder QWEN2 --load.system_prompt INSTRUCTION.txt --prompts "a pier"
hguide sample --from samples/beach_000003.png
hguide sample --config settings.yaml --seeds seeds.txt
"""


def add_arguments(parser: Any) -> None:
    """Options of `hguide sample`."""
    add_model(parser)
    parser.add_argument("--guidance", type=str, default="cfg(3.0) | ssg(0.5)", help="text form; none for none.")
    parser.add_argument("--classes", type=Listed | None, default=None, help="names, numbers, 0-7, a file; every one.")
    parser.add_argument("--prompts", type=str | list[str] | None, default=None, help="a text, a list or a file.")
    parser.add_argument("--negative", type=int | str | None, default=None, help="content of the null condition.")
    parser.add_argument("--seeds", type=Listed, default="0-7", help="numbers, ranges as 0-7,12, or a file.")
    add_flag(parser, "pair", False, "seed by seed through the classes in turn, not every class with every seed.")
    parser.add_argument("--out", type=str, default="samples", help="folder of the PNGs.")
    parser.add_argument("--npz", type=str | None, default=None, help="also all images as arr_0, NHWC bytes (ADM).")
    parser.add_argument("--from", type=str | None, default=None, dest="source", help="a sampled PNG to repeat.")
    add_flag(parser, "overwrite", False, "replace files that hold other settings.")
    add_lenders(parser)
    add_sampling(parser, batch_size=16)


def run(options: Any) -> int:
    """Sample what is missing, or repeat a PNG."""
    if options.source is not None:
        from hguide.cli.repeat import repeat

        return repeat(Path(options.source).expanduser(), options)
    from hguide import lists
    from hguide.cli.lenders import lender_paths, lenders_of
    from hguide.cli.options import load_model, new_file, sampler_of, writable_folder
    from hguide.cli.settings import Settings
    from hguide.guidance import parse
    from hguide.plan import plan
    from hguide.provenance import device_facts, model_hash, sampler_facts, versions

    guidance, sampler, seeds = parse(options.guidance), sampler_of(options), lists.seeds(options.seeds)
    out = writable_folder(options.out)
    archive = None if options.npz is None else new_file(options.npz, ".npz", overwrite=True)
    generator = load_model(options)
    models = lenders_of(options, generator, [guidance])
    plan(generator, guidance, negative=options.negative, models=models)
    conditions = lists.conditions(generator, options.classes, options.prompts)
    general = Settings(
        model=options.model,
        tokenizer=options.tokenizer,
        load=options.load,
        model_hash=model_hash(generator),
        dtype=options.dtype,
        guidance=str(guidance),
        sampler=sampler_facts(sampler),
        condition=None,
        name="",
        negative=options.negative,
        seed=0,
        deterministic=options.deterministic,
        lenders=lender_paths(options.models),
        lender_hashes={name: model_hash(lender) for name, lender in models.items()},
        device=device_facts(generator.device),
        versions=versions(),
    )
    asked = list(dict.fromkeys(_pairs(generator, conditions, seeds, options.pair)))
    images = [replace(general, condition=condition, name=name, seed=seed) for condition, name, seed in asked]
    wanted = dict(zip((out / name for name in file_names(images)), images, strict=True))
    missing = _missing(wanted, options.overwrite)
    out.mkdir(parents=True, exist_ok=True)
    _sample(generator, missing, guidance, sampler, models, options)
    print(f"{len(missing)} sampled, {len(wanted) - len(missing)} there already: {out}")
    if archive is not None:
        _write_archive(archive, list(wanted))
        print(archive)
    return 0


def file_names(wanted: Sequence[Settings]) -> list[str]:
    """Condition and seed: beach_000003.png; with a hash of the condition where it is long or reads like another's."""
    import hashlib

    words = {each.name: re.sub(r"[^\w-]+", "-", each.name).strip("-")[:80] or "image" for each in wanted}
    # Some file systems do not tell upper and lower case apart.
    alike = Counter(word.lower() for word in words.values())
    for name, word in words.items():
        if len(name) > 80 or alike[word.lower()] > 1:
            words[name] += "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return [f"{words[each.name]}_{each.seed:06d}.png" for each in wanted]


def _pairs(
    generator: ScaleGenerator, conditions: Sequence[Any], seeds: Sequence[int], pair: bool
) -> Iterator[tuple[Any, str, int]]:
    """Condition, its name and seed of each image."""
    from hguide.lists import class_name

    pairs: list[Pair] = [(condition, seed) for condition in conditions for seed in seeds]
    if pair:
        pairs = [(conditions[place % len(conditions)], seed) for place, seed in enumerate(seeds)]
    for condition, seed in pairs:
        yield condition, class_name(generator, condition), seed


def _missing(wanted: dict[Path, Settings], overwrite: bool) -> dict[Path, Settings]:
    """The files that are to be made; refuses where a file holds something else."""
    from hguide.cli.settings import read_settings

    missing, others = {}, []
    for path, settings in wanted.items():
        if overwrite or not path.exists():
            missing[path] = settings
            continue
        try:
            differs = read_settings(path).same_image(settings)
        except ConfigError:
            differs = ["no settings of ours"]
        if differs:
            others.append(f"{path} ({', '.join(differs)})")
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise ConfigError(
            f"files with other settings are in the way: {'; '.join(others[:3])}{more}. "
            "Choose another --out, or --overwrite."
        )
    return missing


def _sample(
    generator: ScaleGenerator,
    missing: dict[Path, Settings],
    guidance: Any,
    sampler: Any,
    models: dict[str, ScaleGenerator],
    options: Any,
) -> None:
    from tqdm import tqdm

    from hguide.cli.batches import batches, sample_batches
    from hguide.cli.options import batch_size_of
    from hguide.images import to_uint8, write_png

    pairs = [(settings.condition, settings.seed) for settings in missing.values()]
    size = batch_size_of(options, generator, [guidance], models, wanted=len(pairs)) if pairs else 1
    parts = batches(generator, pairs, size, options.deterministic)
    files = iter(missing.items())
    with tqdm(total=len(pairs), unit="image", desc=str(guidance), file=sys.stderr) as progress:
        for batch in sample_batches(generator, parts, guidance, sampler, negative=options.negative, models=models):
            conditions, seeds = ([*each] for each in zip(*batch.pairs, strict=True))
            for place, pixels in enumerate(to_uint8(batch.images)):
                path, settings = next(files)
                whole = replace(settings, conditions=conditions, seeds=seeds, place=place)
                write_png(path, pixels, whole.chunks())
            progress.update(len(batch.pairs))


def _write_archive(archive: Path, files: Sequence[Path]) -> None:
    """`arr_0` (n, H, W, 3) uint8 in the order of the files, as ADM's evaluator reads it."""
    import io

    import numpy as np

    from hguide.images import read_png, write_bytes

    buffer = io.BytesIO()
    np.savez(buffer, arr_0=np.stack([read_png(file)[0] for file in files]))
    write_bytes(archive, buffer.getvalue())

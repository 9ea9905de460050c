"""`hguide show`: what one entry is."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from hguide.errors import HGuideError, RegistryError, near_matches

HELP = """
Shows an entry: its documentation, options with defaults and text form; of a schedule the values over --steps steps; of
a prior what happens between each pair of grids of --sides (with a wavelet, the band that is lost); of a model its
configuration, hash and training. NAME may carry options: "dse(transform=haar)", "cosine(2)".
"""
EXAMPLES = """
hguide show ssg
hguide show "dse(transform=haar, gain=amplitude)" --sides 1,2,3,4,5,6,8
hguide show cosine --steps 7
hguide show landuse-var
"""
VAR_SIDES = "1,2,3,4,5,6,8,10,13,16"


def add_arguments(parser: Any) -> None:
    """Options of `hguide show`."""
    parser.add_argument("name", type=str, help="entry of `hguide list`, or the path of a model.")
    parser.add_argument("--steps", type=int, default=10, help="number of steps for schedules.")
    parser.add_argument("--sides", type=str | list[int], default=VAR_SIDES, help="sides of square grids for priors.")


def run(options: Any) -> None:
    """Print what the name stands for."""
    from hguide.cli.catalogue import models, registries

    bare = options.name.partition("(")[0].strip()
    hits = [kind for kind, registry in registries().items() if bare in registry]
    blocks = [_entry(kind, bare, options) for kind in hits]
    if options.name in models() or (not hits and Path(options.name).expanduser().exists()):
        blocks.append(_model(options.name))
    if not blocks:
        known = [name for registry in registries().values() for name in registry] + list(models())
        raise RegistryError(f"nothing is called {bare!r}: {near_matches(bare, known)}")
    print("\n\n".join(blocks))


def _entry(kind: str, bare: str, options: Any) -> str:
    from hguide.cli.catalogue import registries

    registry = registries()[kind]
    cls = registry.get(bare)
    lines = [f"{bare} ({registry.kind}, {registry.origin(bare)})", "", inspect.getdoc(cls) or "no documentation", ""]
    if is_dataclass(cls):
        lines += [*_options(cls), ""]
    if kind == "backends":
        return "\n".join(lines).rstrip()
    value = _parsed(kind, options.name)
    lines += [f"text form: {_text(value)}"]
    if kind == "schedules":
        lines += ["", *_values(value, options.steps)]
    if kind == "priors":
        lines += ["", *_notes(value, _sides(options.sides))]
    return "\n".join(lines)


def _options(cls: Any) -> Iterator[str]:
    shown = sorted((each for each in fields(cls) if each.init), key=lambda each: bool(each.kw_only))
    if shown:
        yield "options:"
    wide = max((len(each.name) for each in shown), default=0)
    for each in shown:
        yield f"  {each.name:<{wide}}  {each.type}, default {_default(each)}"


def _default(each: Field[Any]) -> str:
    if each.default is not MISSING:
        return _text(each.default)
    return _text(each.default_factory()) if each.default_factory is not MISSING else "none: must be given"


def _text(value: Any) -> str:
    from hguide.guidance import Guidance, text_of
    from hguide.priors import Prior
    from hguide.schedules import Schedule

    if isinstance(value, Prior | Schedule):
        return text_of(value)
    return str(value) if isinstance(value, Guidance) else repr(value)


def _parsed(kind: str, text: str) -> Any:
    from hguide.guidance import parse, parse_prior, parse_schedule

    return {"guidances": parse, "priors": parse_prior, "schedules": parse_schedule}[kind](text)


def _values(schedule: Any, count: int) -> Iterator[str]:
    from hguide.grids import Scale, Step

    yield f"values over {count} steps (k from 0):"
    for k in range(count):
        try:
            yield f"  {k:2d}  {schedule(Step(k, count, 0, Scale(k, k + 1, k + 1))):.6g}"
        except HGuideError as error:
            yield f"  {error}"
            return


def _notes(prior: Any, sides: list[int]) -> Iterator[str]:
    yield "between the grids:"
    for source, target in pairwise(sides):
        try:
            yield f"  {prior.note((source, source), (target, target))}"
        except HGuideError as error:
            yield f"  {source}x{source} -> {target}x{target}: {error}"


def _sides(given: str | list[int]) -> list[int]:
    from hguide.errors import ConfigError

    found = given.split(",") if isinstance(given, str) else given
    try:
        sides = [int(side) for side in found]
    except ValueError:
        sides = []
    if len(sides) < 2 or min(sides) < 1:
        raise ConfigError(f"sides are at least two positive whole numbers as 1,2,3,4, got {given!r}.")
    return sides


def _model(name: str) -> str:
    from hguide.load import load
    from hguide.provenance import model_hash

    generator = load(name)
    lines = [f"{name} (model {generator.name}, {type(generator).__module__}:{type(generator).__qualname__})"]
    lines += ["", f"hash: {model_hash(generator)}", f"tokenizer hash: {generator.tokenizer_hash}"]
    lines += [f"channels: {generator.channels}"]
    lines += [f"scales: {', '.join(f'{s.height}x{s.width}' for s in generator.scales)}"]
    names = generator.class_names
    if names:
        lines += [f"classes: {', '.join(names)}"]
    for part in ("transformer", "tokenizer"):
        config = getattr(getattr(generator, part, None), "config", None)
        if config is not None:
            lines += ["", f"{part}:", *_pairs(asdict(config), 2)]
    training = _training(name)
    if training:
        lines += ["", "training:", *_pairs(training, 2)]
    return "\n".join(lines)


def _pairs(facts: dict[str, Any], indent: int) -> Iterator[str]:
    for key, value in facts.items():
        if isinstance(value, dict):
            yield f"{' ' * indent}{key}:"
            yield from _pairs(value, indent + 2)
        else:
            yield f"{' ' * indent}{key}: {value}"


def _training(name: str) -> dict[str, Any]:
    """What the file of a model says about its training."""
    from hguide.backends.checkpoints import read_metadata
    from hguide.load import BUNDLED, bundled_path

    path = bundled_path(name) if name in BUNDLED else Path(name).expanduser()
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    return json.loads(read_metadata(path).get("hguide", "{}")).get("training", {})

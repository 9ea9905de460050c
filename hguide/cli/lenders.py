"""Models that lend streams to a run, as they are named on a command line: `weak=PATH`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from hguide.cli.options import load_model
from hguide.errors import CheckpointError, ConfigError, near_matches
from hguide.generator import ScaleGenerator
from hguide.guidance import Guidance
from hguide.plan import asked_models

__all__ = ["add_lenders", "lender_paths", "lenders_of"]


def add_lenders(parser: Any) -> None:
    """Which models lend streams, for guidances that ask for another model's."""
    parser.add_argument(
        "--models",
        type=str | list[str] | dict[str, str] | None,
        default=None,
        help="lenders as NAME=MODEL, several with ; between: weak=small.safetensors for autoguidance.",
    )


def lender_paths(given: str | Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    """Name -> model of each lender.

    Args:
        given: "weak=small.safetensors; other=landuse-var", a list of such entries, or a mapping.

    Raises:
        ConfigError: an entry that is not NAME=MODEL, a name given twice, or the name "main".

    >>> lender_paths("weak = small.safetensors; strong=landuse-var")
    {'weak': 'small.safetensors', 'strong': 'landuse-var'}
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        pairs = [(str(name), str(path)) for name, path in given.items()]
    else:
        entries = given.split(";") if isinstance(given, str) else list(given)
        pairs = [_pair(entry) for entry in entries if entry.strip()]
    found: dict[str, str] = {}
    for name, path in pairs:
        if name == "main":
            raise ConfigError("models: 'main' is the model of the run itself; give its lenders other names.")
        if name in found:
            raise ConfigError(f"models: the lender {name!r} is given twice, {found[name]} and {path}.")
        found[name] = path
    return found


def lenders_of(options: Any, generator: ScaleGenerator, guidances: Sequence[Guidance]) -> dict[str, ScaleGenerator]:
    """The lenders that `options.models` names, loaded where and as the model itself.

    Args:
        options: with what `add_model` and `add_lenders` add.
        generator: the model of the run; a lender of the same name or path is this very model.
        guidances: that will run.

    Raises:
        ConfigError: what `lender_paths` raises, or a lender that no guidance asks for.
        CheckpointError: a lender that cannot be loaded; names it.
    """
    paths = lender_paths(options.models)
    asked = {model for guidance in guidances for model in asked_models(generator, guidance)}
    idle = [name for name in paths if name not in asked]
    if idle:
        raise ConfigError(
            f"models lends {idle[0]!r}, but no guidance asks for it: {near_matches(idle[0], asked)} "
            "autoguidance(model=NAME) asks for a lender."
        )
    return {name: generator if path == options.model else _loaded(name, path, options) for name, path in paths.items()}


def _pair(entry: str) -> tuple[str, str]:
    name, equals, path = (part.strip() for part in entry.partition("="))
    if not equals or not name or not path:
        raise ConfigError(f"models: a lender is written NAME=MODEL, as weak=small.safetensors, got {entry.strip()!r}.")
    return name, path


def _loaded(name: str, path: str, options: Any) -> ScaleGenerator:
    described = Namespace(model=path, tokenizer=options.tokenizer, device=options.device, dtype=options.dtype, load={})
    try:
        return load_model(described)
    except CheckpointError as error:
        raise CheckpointError(f"models: lender {name!r}: {error}") from error

"""Repeating a sampled PNG from the settings inside it."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hguide.cli.batches import sample_batches
from hguide.cli.lenders import lenders_of
from hguide.cli.options import load_model, writable_folder
from hguide.cli.settings import read_settings
from hguide.errors import ConfigError
from hguide.generator import ScaleGenerator
from hguide.guidance import parse
from hguide.images import read_png, to_uint8, write_png
from hguide.provenance import device_facts, model_hash, sampler_from, versions

__all__ = ["repeat"]

TAKEN = ("source", "out", "overwrite", "device", "config")
"""Options that mean something here; the picture tells all others."""


def repeat(source: Path, options: Any) -> int:
    """Sample the image of `source` again, as it was sampled: the same batch, the same place in it.

    Writes it into the folder `options.out` under the name of the source, unless that is the source itself, and prints
    whether it equals the source bit for bit.

    Returns:
        0 where it does, else 1.

    Raises:
        ConfigError: options of a sampling of one's own, no settings in the file, another model under its name, or a
            file in the way.
    """
    _check_options(source, options)
    settings = read_settings(source)
    target = writable_folder(options.out) / source.name
    itself = target.resolve() == source.resolve()
    in_the_way = target.exists() and not itself and not options.overwrite
    if in_the_way and read_settings(target).same_image(settings):
        raise ConfigError(f"{target} holds another image: choose another --out, or --overwrite.")
    described = Namespace(
        model=settings.model,
        tokenizer=settings.tokenizer,
        load=dict(settings.load),
        device=options.device,
        dtype=settings.dtype,
        models=settings.lenders,
    )
    generator, guidance = load_model(described), parse(settings.guidance)
    _check_weights(source, settings.model, settings.model_hash, generator)
    models = lenders_of(described, generator, [guidance])
    for name, lender in models.items():
        _check_weights(source, settings.lenders[name], settings.lender_hashes[name], lender)
    pairs = tuple(zip(settings.conditions, settings.seeds, strict=True))
    sampler = sampler_from(dict(settings.sampler))
    batches = sample_batches(generator, [pairs], guidance, sampler, negative=settings.negative, models=models)
    pixels = to_uint8(next(iter(batches)).images)[settings.place]
    original = read_png(source)[0]
    equal = original.shape == pixels.shape and bool((original == pixels).all())
    if not itself:
        target.parent.mkdir(parents=True, exist_ok=True)
        here = replace(settings, device=device_facts(generator.device), versions=versions())
        write_png(target, pixels, here.chunks())
        print(target)
    print(f"{source}: {'repeated bit for bit' if equal else _difference(original, pixels)}")
    return 0 if equal else 1


def _check_options(source: Path, options: Any) -> None:
    from hguide.cli.commands import sample
    from hguide.cli.parser import command_parser

    usual = command_parser("sample", sample).get_defaults()
    given = [name for name in vars(usual) if name not in TAKEN and getattr(options, name) != getattr(usual, name)]
    if given:
        named = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ConfigError(
            f"--from repeats {source} with the settings inside it, and {named} cannot change them: leave out {named}, "
            "or sample without --from."
        )


def _check_weights(source: Path, name: str, wanted: str, generator: ScaleGenerator) -> None:
    found = model_hash(generator)
    if found != wanted:
        raise ConfigError(
            f"{source} was sampled from weights {wanted[:12]}, but {name} now is {found[:12]}: "
            "the image cannot be repeated with other weights."
        )


def _difference(original: np.ndarray, pixels: np.ndarray) -> str:
    if original.shape != pixels.shape:
        return f"differs: {original.shape[1]}x{original.shape[0]} pixels then, {pixels.shape[1]}x{pixels.shape[0]} now"
    apart = np.abs(original.astype(int) - pixels.astype(int))
    return (
        f"differs in {int((apart.max(-1) > 0).sum())} of {apart[..., 0].size} pixels, by at most {int(apart.max())} "
        "of 255 (another device, torch version or number of threads may do this)"
    )

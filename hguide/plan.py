"""The streams of a run, and what stands against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hguide.errors import ConfigError, StreamError, near_matches
from hguide.generator import ScaleGenerator
from hguide.grids import Step
from hguide.guidance import Guidance
from hguide.streams import COND, UNCOND, Stream

__all__ = ["asked_models", "plan"]


def plan(
    generator: ScaleGenerator,
    guidance: Guidance,
    *,
    negative: Any = None,
    models: Mapping[str, ScaleGenerator] | None = None,
) -> dict[Stream, int]:
    """The streams of a run and their last step of use; what cannot be served is refused here, before the first step.

    Args:
        generator: that would run.
        guidance: that would guide it.
        negative: see `generate`.
        models: see `generate`.

    Raises:
        StreamError: names both sides and the reason.
        ConfigError: a lender that is called "main".
    """
    models = models or {}
    if "main" in models:
        raise ConfigError('models lends streams of other models by name; "main" is the generator itself.')
    last_use: dict[Stream, int] = {}
    for index, scale in enumerate(generator.scales):
        for stream in guidance.asks(COND, Step(index, generator.count, 0, scale)):
            last_use[stream] = index
    if generator.partial and not guidance.partial:
        raise StreamError(f"{guidance} needs full maps, but {generator.name} predicts partial maps at some steps.")
    for stream in last_use:
        if stream.model != "main" and stream.model not in models:
            near = near_matches(stream.model, models)
            raise StreamError(f"{guidance} asks for the stream ({stream}), but models has no {stream.model!r}: {near}")
        server = generator if stream.model == "main" else models[stream.model]
        refusal = server.serves.refusal(stream)
        if refusal:
            raise StreamError(f"{guidance} asks for the stream ({stream}), which {server.name} refuses: {refusal}.")
    for name in {stream.model for stream in last_use} - {"main"}:
        _check_lender(generator, name, models[name])
    if negative is not None and not any(stream.condition == "null" for stream in last_use):
        raise StreamError(f"a negative condition was given, but {guidance} never asks for the null stream ({UNCOND}).")
    return last_use


def asked_models(generator: ScaleGenerator, guidance: Guidance) -> set[str]:
    """The other models that a guidance asks for at any step."""
    steps = (Step(scale.index, generator.count, 0, scale) for scale in generator.scales)
    return {stream.model for step in steps for stream in guidance.asks(COND, step)} - {"main"}


def _check_lender(generator: ScaleGenerator, name: str, lender: ScaleGenerator) -> None:
    if lender.scales != generator.scales or lender.channels != generator.channels:
        raise StreamError(
            f"lender {name!r} predicts {lender.channels} on {len(lender.scales)} scales, "
            f"{generator.name} {generator.channels} on {len(generator.scales)}: they must be the same."
        )
    if lender.tokenizer_hash != generator.tokenizer_hash:
        raise StreamError(f"lender {name!r} has another tokenizer than {generator.name}: its tokens mean other things.")
    if lender.class_count != generator.class_count:
        raise StreamError(
            f"lender {name!r} has {lender.class_count} classes, {generator.name} {generator.class_count}: a class "
            "would mean another thing, or nothing, to it."
        )
    if lender.class_names and generator.class_names and lender.class_names != generator.class_names:
        first = next(pair for pair in zip(lender.class_names, generator.class_names, strict=True) if len({*pair}) > 1)
        raise StreamError(f"lender {name!r} calls {first[0]!r} what {generator.name} calls {first[1]!r}.")
    if not lender.starts_like(generator):
        raise StreamError(
            f"lender {name!r} starts from another map than {generator.name}: give it the same edit and start."
        )

"""What a guidance costs on a generator: predictions at each step, and memory of the streams. Nothing is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hguide.generator import ScaleGenerator
from hguide.grids import Step
from hguide.guidance import Guidance, parse
from hguide.plan import plan
from hguide.streams import COND, Stream

__all__ = ["Cost", "cost"]


@dataclass(frozen=True)
class Cost:
    """Of one image.

    Attributes:
        predictions: logits asked for at each step, by all models together.
        streams: that live at once in a forward pass, over all models.
        cache_bytes: of their keys and values at the end of a run; None where a model keeps none or does not tell.
    """

    predictions: tuple[int, ...]
    streams: int
    cache_bytes: int | None

    def __str__(self) -> str:
        few, many = min(self.predictions), max(self.predictions)
        asked = f"{few} to {many} predictions" if few < many else f"{many} prediction{'s' * (many > 1)}"
        known = "" if self.cache_bytes is None else f", keys and values of {self.cache_bytes / 1e6:.3g} MB an image"
        return f"{asked} a step, {self.streams} stream{'s' * (self.streams > 1)}{known}"


def cost(
    generator: ScaleGenerator, guidance: Guidance | str, *, models: Mapping[str, ScaleGenerator] | None = None
) -> Cost:
    """What an image costs.

    Args:
        generator: that would run.
        guidance: that would guide it, or its text form.
        models: lenders, as in `hguide.generate`.

    Raises:
        StreamError: the generator does not serve what the guidance asks for.

    Example:
        >>> import hguide
        >>> print(cost(hguide.load("landuse-var"), "cfg(1.5) | vpg(0.5)"))
        1 to 4 predictions a step, 4 streams, keys and values of 5.71 MB an image
    """
    guidance = parse(guidance) if isinstance(guidance, str) else guidance
    lenders = {name: lender for name, lender in (models or {}).items() if lender is not generator}
    live: dict[str, set[Stream]] = {}
    for stream in plan(generator, guidance, models=models):
        name = stream.model if stream.model in lenders else "main"
        live.setdefault(name, set()).add(stream.by("main"))
    found = [lenders.get(name, generator).run_bytes(1, len(streams)) for name, streams in live.items()]
    known = [each.cache for each in found if each is not None]
    steps = [Step(scale.index, generator.count, 0, scale) for scale in generator.scales]
    return Cost(
        predictions=tuple(_predictions(guidance, step, lenders) for step in steps),
        streams=sum(map(len, live.values())),
        cache_bytes=(sum(known) or None) if len(known) == len(found) else None,
    )


def _predictions(guidance: Guidance, step: Step, lenders: Mapping[str, ScaleGenerator]) -> int:
    """Streams of a lender that is the generator itself are its own."""
    asked = guidance.asks(COND, step)
    return len({stream if stream.model in lenders else stream.by("main") for stream in asked})

"""Which guidance methods are gauge invariant: logits l and l + c(token) 1 mean the same, the guided ones should too.

The softmax over the v channels of a token does not see a constant c added to all of them. A method is gauge invariant
where constants of any size, different for each stream, step and token, leave the guided probabilities as they are.

Three grounds. *Linear*: the guided logits are linear in those of all streams and steps, so it is enough that each
single constant (one stream, one step, one token) gives a constant again: a finite number of cases, run in full
(`basis_error`). *Gauge option*: the method is not linear, but its factors read logits in a fixed gauge, and what it
adds up are whole logits; shown by random constants, of which one would fail with probability one if the identity did
not hold, since the formulas are piecewise analytic (`shift_error`). *Counterexample*: random constants that change the
probabilities. Bits drawn from logit differences (Infinity) have no gauge: nothing here concerns them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from hguide.grids import Grid, Scale, Step
from hguide.guidance import Guidance, registry
from hguide.guidance.gauge import GAUGES
from hguide.streams import COND, Stream
from hguide.theory.verdict import Verdict, exact, false

__all__ = [
    "GaugeRow",
    "basis_error",
    "centred_verdict",
    "gauge_table",
    "linear_verdict",
    "linearity_error",
    "raw_igg_verdict",
    "shift_error",
]

GRIDS: tuple[Grid, ...] = ((1, 1), (2, 3), (4, 4))
WIDTH, TOLERANCE = 6, 1e-9

Logits = Mapping[tuple[int, Stream], Tensor]


def _step(k: int) -> Step:
    return Step(k, len(GRIDS), 0, Scale(k, *GRIDS[k]))


def _streams(guidance: Guidance) -> list[tuple[int, Stream]]:
    return [(k, stream) for k in range(len(GRIDS)) for stream in guidance.asks(COND, _step(k))]


def _random(guidance: Guidance, samples: int, width: int, draw: torch.Generator) -> dict[Any, Tensor]:
    """Maps for each step and stream; width 1 for constants."""
    return {
        (k, stream): torch.randn(samples, *GRIDS[k], width, generator=draw, dtype=torch.float64)
        for k, stream in _streams(guidance)
    }


def _guided(guidance: Guidance, logits: Logits) -> Float64[Tensor, "samples tokens v"]:
    """Guided logits of all steps of a run; samples do not see each other."""
    memory: Any = {}
    results = []
    for k in range(len(GRIDS)):
        given = {stream: logits[k, stream].clone() for stream in guidance.asks(COND, _step(k))}
        guided, memory = guidance.apply(given, _step(k), memory)
        results.append(guided.flatten(1, 2))
    return torch.cat(results, dim=1)


def linearity_error(guidance: Guidance, seed: int = 0) -> float:
    """|G(a x + b y) - a G(x) - b G(y)|, relative to |G|, for random runs x and y: rounding for a linear method.

    Args:
        guidance: G, from the logits of all its streams and steps to the guided logits of all steps.
        seed: of the runs.
    """
    draw = torch.Generator().manual_seed(seed)
    first, second = _random(guidance, 1, WIDTH, draw), _random(guidance, 1, WIDTH, draw)
    runs = {
        key: torch.cat([x, y, 0.7 * x - 1.3 * y]) for (key, x), y in zip(first.items(), second.values(), strict=True)
    }
    one, two, both = _guided(guidance, runs)
    return float((both - 0.7 * one + 1.3 * two).abs().max() / both.abs().max())


def basis_error(guidance: Guidance) -> float:
    """Largest part that is no constant in what G makes of each single constant; for a linear G this is the proof.

    Args:
        guidance: a linear one.
    """
    places = [(key, place) for key in _streams(guidance) for place in range(GRIDS[key[0]][0] * GRIDS[key[0]][1])]
    logits = {
        (k, stream): torch.zeros(len(places), *GRIDS[k], WIDTH, dtype=torch.float64) for k, stream in _streams(guidance)
    }
    for sample, (key, place) in enumerate(places):
        logits[key][sample].view(-1, WIDTH)[place] = 1.0
    guided = _guided(guidance, logits)
    return float((guided - guided.mean(-1, keepdim=True)).abs().max())


def shift_error(guidance: Guidance, trials: int = 8, size: float = 2.0) -> float:
    """Largest change of a guided probability when random constants are added to each stream, step and token.

    Args:
        guidance: any.
        trials: random runs with random constants.
        size: standard deviation of the constants.
    """
    draw = torch.Generator().manual_seed(0)
    logits = {key: 1.5 * maps for key, maps in _random(guidance, trials, WIDTH, draw).items()}
    constants = _random(guidance, trials, 1, draw)
    moved = {key: maps + size * constants[key] for key, maps in logits.items()}
    before, after = (_guided(guidance, each).softmax(-1) for each in (logits, moved))
    return float((after - before).abs().max())


@dataclass(frozen=True)
class GaugeRow:
    """One method of the registry.

    Attributes:
        guidance: text form.
        gauge: its gauge option, "" where it has none.
        ground: "linear: every single constant", "random constants" or "counterexample".
        error: the number behind it.
        invariant: what follows.
    """

    guidance: str
    gauge: str
    ground: str
    error: float
    invariant: bool


def gauge_table(names: Sequence[str] | None = None) -> list[GaugeRow]:
    """Every registered method, in each gauge that it offers.

    Args:
        names: of methods; all by default, plug-ins included. Each is tried with its defaults, and APG with a radius
            besides, since its norms do not enter otherwise.
    """
    rows = []
    for name in names if names is not None else registry.names():
        for guidance in _variants(registry.get(name)()):
            gauge = getattr(guidance, "gauge", "")
            if linearity_error(guidance) < TOLERANCE and (error := basis_error(guidance)) < TOLERANCE:
                rows.append(GaugeRow(str(guidance), gauge, "linear: every single constant", error, True))
                continue
            error = shift_error(guidance)
            ground = "random constants" if error < TOLERANCE else "counterexample"
            rows.append(GaugeRow(str(guidance), gauge, ground, error, error < TOLERANCE))
    return rows


def _variants(guidance: Any) -> list[Guidance]:
    """The method in each gauge, and over a whole map where its factors can be taken there."""
    if not hasattr(guidance, "gauge"):
        return [guidance]
    found = [replace(guidance, gauge=gauge) for gauge in GAUGES]
    if hasattr(guidance, "reduction"):
        found += [replace(each, reduction="map") for each in found]
    if hasattr(guidance, "radius"):
        found += [replace(each, radius=1.0, momentum=-0.5) for each in found]
    return found


def linear_verdict() -> Verdict:
    """Linear methods are gauge invariant, whatever the prior does to constants."""
    from hguide.guidance import parse

    texts = ("cfg", "ssg", "ssg(prior=nearest)", "ssg(prior=dse(gain=3.0))", "fdg", "vpg", "family", "cfg | vpg | ssg")
    return exact(max(basis_error(parse(text)) for text in texts), "largest part that is no constant")


def raw_igg_verdict() -> Verdict:
    """Is IGG gauge invariant as its authors' code has it?"""
    return false(shift_error(registry.get("igg")()), "change of a guided probability by constants")


def centred_verdict() -> Verdict:
    """Methods with a gauge option are invariant where it fixes the gauge."""
    rows = [row for row in gauge_table() if row.gauge in ("centred", "log_softmax")]
    return exact(max(row.error for row in rows), f"largest change of a probability, {len(rows)} variants")

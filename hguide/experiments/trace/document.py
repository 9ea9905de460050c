"""The numbers of a trace as JSON: schema `hguide.trace/1`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hguide.experiments.trace.records import StepRow, TraceOptions
from hguide.experiments.trace.summary import QUANTITIES, StepSummary, over_steps, summarise
from hguide.guidance import text_of

__all__ = ["SCHEMA", "document", "text"]

SCHEMA = "hguide.trace/1"


def document(
    samples: Sequence[Sequence[StepRow]], labels: Sequence[dict[str, Any]], options: TraceOptions, run: dict[str, Any]
) -> dict[str, Any]:
    """The trace of a run.

    Keys: `schema`; what the caller says of the run (model, guidance, sampler, seeds, versions, ...); `looked_at` (the
    options); `quantities` (each number in words); `over_steps` (evenness and divergence as a mean over the steps,
    weighted by tokens); `steps` (one entry per step: mean, 10 % and 90 % quantile over the samples); `samples` (one
    entry per sample with the numbers of each step; `heat` where it was kept). Every number is finite; what is not
    defined is null.

    Args:
        samples: rows of each sample, from `Tracer.take`.
        labels: what each sample is: condition, name, seed.
        options: of the tracer.
        run: what the samples were made with, JSON types.
    """
    return {
        "schema": SCHEMA,
        **run,
        "looked_at": {
            "signal": options.signal,
            "gauge": options.gauge,
            "reference": options.reference,
            "prior": text_of(options.prior),
            "band_edges": list(options.edges),
        },
        "quantities": {
            **QUANTITIES,
            "bands": "residual by band of spatial frequency, the lowest first; edges as parts of the Nyquist frequency",
            "heat": "|n| of each token, null where the step does not predict it",
        },
        "over_steps": {name: over_steps(samples, name) for name in ("evenness", "divergence")},
        "steps": [_step(each) for each in summarise(samples)],
        "samples": [
            {**label, "steps": [_row(row) for row in sample]} for label, sample in zip(labels, samples, strict=True)
        ],
    }


def text(content: dict[str, Any]) -> str:
    """The document as a file; refuses numbers that are not finite."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _step(summary: StepSummary) -> dict[str, Any]:
    numbers = {name: None if each is None else asdict(each) for name, each in summary.numbers.items()}
    bands = None if summary.bands is None else [asdict(each) for each in summary.bands]
    return {**_place(summary), **numbers, "bands": bands}


def _row(row: StepRow) -> dict[str, Any]:
    numbers = {name: getattr(row, name) for name in QUANTITIES}
    found = {**_place(row), **numbers, "bands": None if row.bands is None else list(row.bands)}
    if row.heat is not None:
        found["heat"] = [[value if math.isfinite(value) else None for value in line] for line in row.heat.tolist()]
    return found


def _place(step: StepRow | StepSummary) -> dict[str, Any]:
    return {"index": step.index, "call": step.call, "grid": list(step.grid), "tokens": step.tokens}

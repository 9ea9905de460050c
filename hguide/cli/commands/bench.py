"""`hguide bench`: what guidance costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from hguide.cli.jobs import Job, choose

JOBS: Mapping[str, Job] = MappingProxyType(
    {
        "guidance": Job(
            "Measure the SSG update against what memory and arithmetic allow, and against transforms per call.",
            "hguide bench guidance --quick true\nhguide bench guidance --end_to_end 20 --threads 2",
            "hguide.experiments.bench.guidance",
            "BenchConfig",
        ),
        "sampling": Job(
            "Measure VAR sampling against the loop as it is usually written, and the sampler against a full sort.",
            "hguide bench sampling --threads 2\n"
            "hguide bench sampling --device cuda --dtype bfloat16 --batches '[1, 64]'",
            "hguide.experiments.bench.sampling",
            "SamplingBenchConfig",
        ),
    }
)


def chosen(arguments: Sequence[str]) -> tuple[Any, list[str], str]:
    """The benchmark that was asked for."""
    return choose("bench", JOBS, arguments)

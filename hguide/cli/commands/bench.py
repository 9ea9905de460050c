"""`hguide bench`: what guidance costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from hguide.cli.jobs import FunctionJob, Job, choose

JOBS: Mapping[str, Job] = MappingProxyType(
    {
        "guidance": FunctionJob(
            "Measure the SSG update against what memory and arithmetic allow, and against transforms per call.",
            "hguide bench guidance",
            "hguide.experiments.bench.guidance",
        ),
    }
)


def chosen(arguments: Sequence[str]) -> tuple[Any, list[str], str]:
    """The benchmark that was asked for."""
    return choose("bench", JOBS, arguments)

"""`hguide bench`: what guidance costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from hguide.cli.jobs import Job, choose

JOBS: Mapping[str, Job] = MappingProxyType(
    {
        "all": Job(
            "Run all of guidance, sampler, backbone, sampling and memory; one table, one file.",
            "hguide bench all --threads 2 --out bench.json\nhguide bench all --device cuda --runs 20",
            "hguide.experiments.bench.everything",
            "AllBenchConfig",
        ),
        "guidance": Job(
            "Measure the SSG update against what memory and arithmetic allow, and against transforms per call.",
            "hguide bench guidance --quick true\nhguide bench guidance --end_to_end 20 --threads 2",
            "hguide.experiments.bench.guidance",
            "BenchConfig",
        ),
        "sampling": Job(
            "Measure VAR sampling against the loop as it is usually written.",
            "hguide bench sampling --threads 2\n"
            "hguide bench sampling --device cuda --dtype bfloat16 --batches '[1, 64]'",
            "hguide.experiments.bench.sampling",
            "SamplingBenchConfig",
        ),
        "sampler": Job(
            "Measure a draw beside a full sort and softmax, beside one read of the logits, and how it grows.",
            "hguide bench sampler --threads 1\nhguide bench sampler --device cuda",
            "hguide.experiments.bench.sampler",
            "SamplerBenchConfig",
        ),
        "backbone": Job(
            "Measure each step of a transformer of VAR-d16's size beside what memory and arithmetic allow.",
            "hguide bench backbone --threads 2\nhguide bench backbone --device cuda --batch 8",
            "hguide.experiments.bench.backbone",
            "BackboneBenchConfig",
        ),
        "inference": Job(
            "Measure VAR's network run plainly, compiled and as CUDA graphs, and the tokens that its type changes.",
            "hguide bench inference --model landuse-var --dtypes '[bfloat16]' --variants '[eager]'\n"
            "hguide bench inference --device cuda --batches '[1, 64]'",
            "hguide.experiments.bench.inference",
            "InferenceBenchConfig",
        ),
        "families": Job(
            "Measure whole images of the other families at their published sizes, plainly and as CUDA graphs.",
            "hguide bench families --device cuda --batches '[1, 4]'",
            "hguide.experiments.bench.families",
            "FamiliesBenchConfig",
        ),
        "memory": Job(
            "Predict the peak memory of a run and measure it; with --predict true, predict alone.",
            "hguide bench memory --model landuse-var --batches '[1, 8, 0]'\n"
            "hguide bench --predict --model var_d16.pth --batches '[64]' --dtype bfloat16",
            "hguide.experiments.bench.memory",
            "MemoryBenchConfig",
        ),
    }
)


def chosen(arguments: Sequence[str]) -> tuple[Any, list[str], str]:
    """The benchmark that was asked for; `--predict` in front is short for `memory --predict true`."""
    if arguments[:1] == ["--predict"]:
        arguments = ["memory", "--predict", "true", *arguments[1:]]
    return choose("bench", JOBS, arguments)

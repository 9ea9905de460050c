"""The part of a sampling run that guidance takes, at the size of VAR-d16."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial

import torch

from hguide.backends.conv_autoencoder import AutoencoderConfig
from hguide.backends.var import VAR, TokenizerConfig, TransformerConfig, VARTokenizer, VARTransformer
from hguide.experiments.bench.timed_guidance import TimedGuidance, Unguided
from hguide.experiments.bench.timing import Spans, timed
from hguide.generate import generate
from hguide.generator import ScaleGenerator
from hguide.guidance import parse
from hguide.sampling import Sampler

__all__ = ["Share", "captured_guidance_share", "guidance_share", "var_d16"]

GUIDANCE = "cfg(1.5) | ssg(1.0)"


@dataclass(frozen=True)
class Share:
    """Time in guidance and in all, medians over runs.

    Attributes:
        guidance_ms: in the guidance of all steps.
        total_ms: of the whole call of `generate`, decoding included.
        ratio: median of the runs' own ratios.
        runs: their number.
    """

    guidance_ms: float
    total_ms: float
    ratio: float
    runs: int


def guidance_share(
    generator: ScaleGenerator, *, runs: int, batch: int = 1, guidance: str = GUIDANCE, sampler: Sampler | None = None
) -> Share:
    """Sample images with CFG and SSG, and time the guidance inside the same runs.

    Args:
        generator: to sample from; one untimed run comes first.
        runs: timed runs.
        batch: images per run.
        guidance: in its text form.
        sampler: of the draws.

    Returns:
        The share of the time.
    """
    inside, whole = [], []
    for run in range(runs + 1):
        spans, total = Spans(generator.device), Spans(generator.device)
        seeds = range(run * batch, (run + 1) * batch)
        total.start()
        generate(generator, 0, TimedGuidance(parse(guidance), spans), sampler, seeds=seeds)
        total.stop()
        if run:
            inside.append(spans.total_ms())
            whole.append(total.total_ms())
    ratios = [part / all_ for part, all_ in zip(inside, whole, strict=True)]
    return Share(statistics.median(inside), statistics.median(whole), statistics.median(ratios), runs)


def captured_guidance_share(
    generator: VAR, *, runs: int, guidance: str = GUIDANCE, sampler: Sampler | None = None
) -> Share:
    """The share where each run is one CUDA graph: what a run is longer by than one that asks for the same streams.

    Args:
        generator: to sample from, on a CUDA device; untimed runs come first.
        runs: timed runs of both, in turn.
        guidance: in its text form.
        sampler: of the draws.

    Returns:
        The share of the time.
    """
    captured, guided = generator.with_options(graphs=True), parse(guidance)
    times: list[tuple[float, float]] = []
    for seed in range(runs + 2):
        pair = [
            timed(partial(generate, captured, 0, each, sampler, seeds=[seed]), generator.device)[0]
            for each in (guided, Unguided(guided))
        ]
        times.append((pair[0], pair[1]))
    times = times[2:]
    inside = statistics.median(whole - without for whole, without in times)
    ratio = statistics.median((whole - without) / whole for whole, without in times)
    return Share(inside, statistics.median(whole for whole, _ in times), ratio, runs)


def var_d16(device: torch.device, dtype: torch.dtype) -> VAR:
    """VAR-d16 at 256 pixels with random weights: the work is the same, the picture is noise."""
    sides = TokenizerConfig().patch_nums
    config = TransformerConfig(sides, depth=16, width=1024, heads=16, classes=1000, vocabulary=4096, latent_channels=32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = VARTransformer(config).to(device, dtype)
        tokenizer = VARTokenizer(TokenizerConfig(AutoencoderConfig())).to(device, dtype)
    return VAR(transformer, tokenizer, name="var-d16, random weights")

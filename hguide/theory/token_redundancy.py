"""Measured hierarchy: what a step's tokens say about the low and the high band of the final latent.

The low band of step k is what the grid of step k - 1 can hold (its DCT frequencies), the high band is the rest. What
tokens say about the low band was settled before: information about it is the step's redundancy, which Scaled Spatial
Guidance (arXiv 2602.05534, section 3) claims to lower. The bands are read at the centres of the step's cells, one
sample per token, by the cosines of the DCT, so that the high band keeps its sign.

Two estimators. "plug-in" on classes: the codes of the tokens and the values of the band, each cut into equally filled
cells of its two principal components, with Miller and Madow's correction. "k-NN" on features: the two principal
components of what the step adds to the latent, and those of the band. Both see a part of the tokens' information, and
so bound it from below as far as the estimator is unbiased; compare rows of one estimator only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from hguide.backends.multiscale_quantizer import MultiScaleQuantizer
from hguide.errors import ConfigError
from hguide.generate import StepRecord, generate
from hguide.generator import ScaleGenerator
from hguide.grids import Grid
from hguide.priors.dct import dct_matrix
from hguide.theory.jackknife import Interval, leave_out
from hguide.theory.mutual_information import ksg, miller_madow, shuffled

__all__ = ["BANDS", "ESTIMATORS", "Redundancy", "Runs", "band_values", "cosine_samples", "measure", "sample_runs"]

BANDS = ("low", "high")
ESTIMATORS = ("plug-in", "k-NN")
COMPONENTS, CELLS, MOST_SAMPLES = 2, 3, 4000


@dataclass(frozen=True, eq=False)
class Runs:
    """What was sampled under one guidance.

    Attributes:
        tokens: of each scale, `(n, h, w)`.
        codes: of each scale, the codebook rows of its tokens `(n, c, h, w)`.
        increments: of each scale, what it adds to the latent `(n, c, H, W)`.
        latent: the final one `(n, c, H, W)`.
    """

    tokens: Sequence[Int[Tensor, "n _ _"]]
    codes: Sequence[Float64[Tensor, "n c _ _"]]
    increments: Sequence[Float64[Tensor, "n c H W"]]
    latent: Float64[Tensor, "n c H W"]


@dataclass(frozen=True)
class Redundancy:
    """One estimate.

    Attributes:
        step: index k, from 1.
        grid: of the step.
        guidance: text form.
        band: "low" or "high".
        estimator: "plug-in" or "k-NN".
        samples: tokens that were used.
        nats: the estimate and its 95 % interval over pictures.
        control: mean estimate with shuffled pictures.
        control_spread: largest distance of a shuffled estimate from that mean.
        change: estimate less that of the first guidance, on the same seeds, with its interval; None for the first.
    """

    step: int
    grid: Grid
    guidance: str
    band: str
    estimator: str
    samples: int
    nats: Interval
    control: float
    control_spread: float
    change: Interval | None

    @property
    def excess(self) -> float:
        """The estimate less its control: what the pictures share, beyond bias and place."""
        return self.nats.estimate - self.control


@torch.no_grad()
def sample_runs(generator: ScaleGenerator, guidance: str, images: int, batch_size: int = 32) -> Runs:
    """Pictures of all classes in turn, seeds 0, 1, ..., and what their tokens add up to.

    Args:
        generator: whose tokens add up to a latent by a `MultiScaleQuantizer` (VAR).
        guidance: text form.
        images: how many.
        batch_size: pictures at once.

    Raises:
        ConfigError: a generator of another kind.
    """
    quantizer = getattr(getattr(generator, "tokenizer", None), "quantize", None)
    if not isinstance(quantizer, MultiScaleQuantizer):
        raise ConfigError(
            f"{generator.name}: its tokens do not add up to a latent by VAR's quantizer; use landuse-var."
        )
    conditions = [number % (generator.class_count or 1) for number in range(images)]
    found: list[list[Tensor]] = [[] for _ in generator.scales]

    def keep(record: StepRecord) -> None:
        found[record.step.index].append(record.draw.tokens.cpu())

    generate(generator, conditions, guidance, seeds=range(images), on_step=keep, batch_size=batch_size)
    tokens = [torch.cat(parts) for parts in found]
    device = quantizer.embedding.weight.device
    placed = [each.to(device) for each in tokens]
    latents = quantizer.accumulate_prefixes(placed, [scale.grid for scale in generator.scales])
    prefixes = [each.double().cpu() for each in latents]
    increments = [prefixes[0], *(after - before for before, after in pairwise(prefixes))]
    return Runs(tokens, [quantizer.lookup(each).double().cpu() for each in placed], increments, prefixes[-1])


def measure(
    generator: ScaleGenerator,
    guidances: Sequence[str],
    images: int,
    *,
    batch_size: int = 32,
    rounds: int = 10,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Redundancy]:
    """Mutual information of each step's tokens with both bands, under each guidance, with intervals and controls.

    All guidances share the seeds, and the axes and cells of the features, which are fitted on all of them together.

    Args:
        generator: see `sample_runs`.
        guidances: text forms; changes are against the first.
        images: pictures per guidance, at least 20 (the intervals leave out tenths of them).
        batch_size: pictures at once.
        rounds: shuffled pairings per control.
        progress: receives a line now and then.

    Raises:
        ConfigError: too few pictures, no guidance or one twice, or a generator of another kind.
    """
    if images < 20:
        raise ConfigError(f"intervals over pictures need at least 20 of them, got {images}.")
    if not guidances or len(set(guidances)) < len(guidances):
        raise ConfigError(f"give one guidance or more, each once, got {list(guidances)}.")
    runs = []
    for text in guidances:
        progress(f"sampling {images} pictures: {text}")
        runs.append(sample_runs(generator, text, images, batch_size))
    rows = []
    for k, scale in enumerate(generator.scales[1:], start=1):
        progress(f"step {k} of {generator.count - 1}, {scale.height}x{scale.width}")
        for band in BANDS:
            rows += _plug_in_rows(runs, guidances, k, generator.scales[k - 1].grid, scale.grid, band, rounds)
            rows += _neighbour_rows(runs, guidances, k, generator.scales[k - 1].grid, scale.grid, band, rounds)
    return rows


def cosine_samples(size: int, at: int, first: int = 0, last: int | None = None) -> Float64[Tensor, "{at} {size}"]:
    """An axis of `size` values as its DCT cosines `first` to `last` - 1, read at the centres of `at` equal cells."""
    frequencies = torch.arange(size, dtype=torch.float64)
    centres = (torch.arange(at, dtype=torch.float64) + 0.5) / at
    norms = torch.full_like(frequencies, math.sqrt(2.0 / size))
    norms[0] = math.sqrt(1.0 / size)
    chosen = slice(first, last)
    return (norms * torch.cos(math.pi * frequencies * centres[:, None]))[:, chosen] @ dct_matrix(size)[chosen]


def band_values(maps: Float64[Tensor, "n c H W"], edge: Grid, grid: Grid, band: str) -> Float64[Tensor, "n h w c"]:
    """A band of maps at the cell centres of a grid.

    Args:
        maps: latents.
        edge: the grid whose frequencies are low: the first `edge` DCT frequencies of each axis.
        grid: where to read.
        band: "low", "high" (all less low) or "all".
    """
    sides = list(zip(maps.shape[2:], grid, edge, strict=True))
    full = [cosine_samples(size, at) for size, at, _ in sides]
    low = [cosine_samples(size, at, 0, kept) for size, at, kept in sides]
    parts = {"low": [(1.0, low)], "all": [(1.0, full)], "high": [(1.0, full), (-1.0, low)]}[band]
    values = torch.stack([sign * (y @ maps @ x.T) for sign, (y, x) in parts]).sum(0)
    return values.movedim(1, -1)


def _plug_in_rows(
    runs: Sequence[Runs], guidances: Sequence[str], k: int, edge: Grid, grid: Grid, band: str, rounds: int
) -> list[Redundancy]:
    x = _cells(_components([run.codes[k].movedim(1, -1) for run in runs]))
    y = _cells(_components([band_values(run.latent, edge, grid, band) for run in runs]))
    return _rows(miller_madow, "plug-in", x, y, guidances, k, grid, band, rounds)


def _neighbour_rows(
    runs: Sequence[Runs], guidances: Sequence[str], k: int, edge: Grid, grid: Grid, band: str, rounds: int
) -> list[Redundancy]:
    images = len(runs[0].latent)
    # The search for neighbours is what takes the time: the same few places of each picture.
    count = max(1, min(grid[0] * grid[1], MOST_SAMPLES // images))
    places = np.sort(np.random.default_rng(k).permutation(grid[0] * grid[1])[:count])
    x = _components([band_values(run.increments[k], edge, grid, "all") for run in runs])
    y = _components([band_values(run.latent, edge, grid, band) for run in runs])
    chosen = [[part[:, places] for part in parts] for parts in (x, y)]
    return _rows(ksg, "k-NN", chosen[0], chosen[1], guidances, k, grid, band, rounds)


def _rows(
    estimator: Callable[..., float],
    name: str,
    x: Sequence[np.ndarray],
    y: Sequence[np.ndarray],
    guidances: Sequence[str],
    k: int,
    grid: Grid,
    band: str,
    rounds: int,
) -> list[Redundancy]:
    """Rows of all guidances; x and y hold `(n, places, ...)` per guidance."""
    images, places = x[0].shape[:2]
    replicates = [leave_out(_of_pictures(estimator, *pair), images) for pair in zip(x, y, strict=True)]
    rows = []
    for number, guidance in enumerate(guidances):
        flat_x, flat_y = (part[number].reshape(images * places, *part[number].shape[2:]) for part in (x, y))
        broken = shuffled(estimator, flat_x, flat_y, np.repeat(np.arange(images), places), rounds, seed=k)
        rows.append(
            Redundancy(
                step=k,
                grid=grid,
                guidance=guidance,
                band=band,
                estimator=name,
                samples=images * places,
                nats=replicates[number].interval(),
                control=float(broken.mean()),
                control_spread=float(np.abs(broken - broken.mean()).max()),
                change=(replicates[number] - replicates[0]).interval() if number else None,
            )
        )
    return rows


def _of_pictures(
    estimator: Callable[..., float], x: np.ndarray, y: np.ndarray
) -> Callable[[Int[np.ndarray, " chosen"]], float]:
    """The estimate on chosen pictures."""

    def estimate(chosen: np.ndarray) -> float:
        return estimator(*(part[chosen].reshape(-1, *part.shape[2:]) for part in (x, y)))

    return estimate


def _components(parts: Sequence[Float64[Tensor, "n h w c"]]) -> list[Float64[np.ndarray, "n places d"]]:
    """Principal components, fitted on all parts together."""
    rows = torch.cat([part.flatten(0, 2) for part in parts])
    mean = rows.mean(0)
    axes = torch.linalg.eigh((rows - mean).T @ (rows - mean))[1].flip(1)[:, :COMPONENTS]
    return [((part.flatten(1, 2) - mean) @ axes).numpy() for part in parts]


def _cells(parts: Sequence[Float64[np.ndarray, "n places d"]]) -> list[Int[np.ndarray, "n places"]]:
    """Each component cut into CELLS equally filled parts, over all parts together; one class per cell."""
    rows = np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])
    edges = np.quantile(rows, np.arange(1, CELLS) / CELLS, axis=0)
    found = []
    for part in parts:
        digits = [np.searchsorted(edges[:, d], part[..., d]) for d in range(part.shape[-1])]
        found.append(sum(digit * CELLS**place for place, digit in enumerate(digits)))
    return [np.asarray(each, dtype=np.int64) for each in found]

"""What is computed at each step of each sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from hguide.errors import ConfigError, near_matches
from hguide.experiments.trace.entropy import token_entropy
from hguide.experiments.trace.kept import kept_candidates
from hguide.experiments.trace.residual import band_energies, centred, check_edges, mixed_logits, token_energy
from hguide.experiments.trace.signal import check_signal, guidance_signal, signal_norms, signal_peaks
from hguide.generate import StepRecord
from hguide.generator import Binary, Categorical
from hguide.grids import Grid, Step
from hguide.guidance.carried import carried
from hguide.images import to_uint8
from hguide.priors import DSE, Prior
from hguide.sampling import Sampler
from hguide.streams import COND
from hguide.theory.dynamics import divergence, evenness, regrid

__all__ = ["REFERENCES", "StepRow", "TraceOptions", "Tracer"]

REFERENCES = ("previous", "final", "uniform")


@dataclass(frozen=True)
class TraceOptions:
    """What is looked at.

    Args:
        signal: "added", "contrast" or "scaled"; see `guidance_signal`.
        gauge: of the signal; see `guidance_signal`.
        reference: what the divergence compares the signal of a step with: "previous", the step before (drift);
            "final", the last step; or "uniform", the same on all tokens.
        prior: P of the semantic residual.
        edges: of its bands; see `band_energies`.

    Raises:
        ConfigError: an unknown name, or edges that do not ascend.
    """

    signal: str = "added"
    gauge: str = "centred"
    reference: str = "previous"
    prior: Prior = field(default_factory=DSE)
    edges: tuple[float, ...] = (0.25, 0.5, 0.75)

    def __post_init__(self) -> None:
        check_signal(self.signal, self.gauge)
        check_edges(self.edges)
        if self.reference not in REFERENCES:
            raise ConfigError(f"unknown reference {self.reference!r}: {near_matches(self.reference, REFERENCES)}")


@dataclass(frozen=True, eq=False)
class StepRow:
    """One step of one sample; None where a quantity is not defined.

    Attributes:
        index: step index from 0.
        call: network call at this index.
        grid: of the full map.
        tokens: number of positions that the step predicts.
        strength: mean over the tokens of |n|; None where there is no such signal.
        evenness: Pielou's, of the signal's peaks; None for one token, and where nothing is added.
        divergence: Jensen-Shannon, from the reference, in bits; None for one token, and where either is nothing.
        entropy_given: mean over the tokens, of the given condition's logits, in nats.
        entropy_guided: of the guided logits.
        entropy_drawn: of what is drawn from, after temperature and filters.
        kept: mean number of candidates.
        kept_least: at the token with the fewest.
        kept_most: at the token with the most.
        residual: mean over the tokens of |l_k - P l_{k-1}|^2; None where there is no map before.
        share: that, relative to the mean of |l_k|^2.
        bands: `residual` by band, the lowest first; None also on partial maps.
        heat: `(h, w)` |n| of each token, NaN where it was not predicted; None where it was not asked for.
        picture: `(H, W, 3)` bytes decoded after the step; None where it was not asked for.
    """

    index: int
    call: int
    grid: Grid
    tokens: int
    strength: float | None
    evenness: float | None
    divergence: float | None
    entropy_given: float
    entropy_guided: float
    entropy_drawn: float
    kept: float
    kept_least: float
    kept_most: float
    residual: float | None
    share: float | None
    bands: tuple[float, ...] | None
    heat: Float[np.ndarray, "h w"] | None
    picture: UInt8[np.ndarray, "H W 3"] | None


class Tracer:
    """An `on_step` that looks at every step; `take()` hands out the rows of a batch when its run is over.

    Args:
        channels: of the generator.
        sampler: of the run.
        options: what is looked at.
        pictures: of how many samples, the first ones, heat maps and pictures are kept.

    Example:
        >>> import hguide
        >>> model, sampler = hguide.load("toy"), hguide.Sampler(top_k=8)
        >>> tracer = Tracer(model.channels, sampler)
        >>> images = hguide.generate(model, 1, "cfg(2.0)", sampler, seeds=range(2), on_step=tracer)
        >>> first, second = tracer.take()
        >>> [row.kept for row in first]
        [8.0, 8.0, 8.0, 8.0, 8.0]
    """

    def __init__(
        self,
        channels: Categorical | Binary,
        sampler: Sampler | None = None,
        options: TraceOptions | None = None,
        pictures: int = 0,
    ) -> None:
        self.channels = channels
        self.sampler = sampler or Sampler()
        self.options = options or TraceOptions()
        self.pictures = pictures
        self._rows: list[list[StepRow]] = []
        self._places: list[tuple[Step, Tensor | None]] = []
        self._before: Tensor | None = None

    def __call__(self, record: StepRecord) -> None:
        """Look at one step of the batch under way."""
        step, batch = record.step, len(record.logits)
        signal = guidance_signal(record, self.channels, self.options.signal, self.options.gauge)
        norms = None if signal is None else signal_norms(signal)
        self._places.append((step, None if signal is None else signal_peaks(signal, self.channels).double().cpu()))
        given = token_entropy(record.predictions[COND], self.channels).mean(1).tolist()
        guided = token_entropy(record.logits, self.channels).mean(1).tolist()
        kept = kept_candidates(record.logits, step, self.sampler, self.channels)
        drawn, counts = kept.entropy.mean(1).tolist(), kept.count.cpu()
        residual, share, bands = self._residual(record)
        shown = min(self.pictures, batch)
        pictures = to_uint8(record.decode()[:shown]) if shown else None
        rows = [
            StepRow(
                index=step.index,
                call=step.call,
                grid=step.grid,
                tokens=counts.shape[1],
                strength=None if norms is None else float(norms[i].mean()),
                evenness=None,
                divergence=None,
                entropy_given=given[i],
                entropy_guided=guided[i],
                entropy_drawn=drawn[i],
                kept=float(counts[i].mean()),
                kept_least=float(counts[i].min()),
                kept_most=float(counts[i].max()),
                residual=None if residual is None else residual[i],
                share=None if share is None else share[i],
                bands=None if bands is None else tuple(bands[i]),
                heat=None if norms is None or i >= shown else _on_grid(norms[i : i + 1], step, i),
                picture=None if pictures is None or i >= shown else pictures[i],
            )
            for i in range(batch)
        ]
        self._rows.append(rows)

    def take(self) -> list[list[StepRow]]:
        """The rows of each sample of the batch, in order; the tracer is then ready for the next batch."""
        spread = self._spread()
        rows = [
            [replace(row, evenness=_finite(even[i]), divergence=_finite(apart[i])) for i, row in enumerate(step_rows)]
            for step_rows, (even, apart) in zip(self._rows, spread, strict=True)
        ]
        samples = [list(each) for each in zip(*rows, strict=True)]
        self.pictures = max(0, self.pictures - len(samples))
        self._rows, self._places, self._before = [], [], None
        return samples

    def _residual(self, record: StepRecord) -> tuple[list[float] | None, list[float] | None, list[list[float]] | None]:
        """Energy, share and bands of each sample, against the last full map."""
        step, logits, before = record.step, mixed_logits(record), self._before
        if step.positions is None:
            self._before = logits
        if before is None:
            return None, None, None
        residual = centred(logits - carried(self.options.prior, before, step), self.channels)
        energy = token_energy(residual)
        share = energy / token_energy(centred(logits, self.channels)).clamp_min(1e-30)
        bands = band_energies(residual, self.options.edges).tolist() if step.positions is None else None
        return energy.tolist(), share.tolist(), bands

    def _spread(self) -> list[tuple[list[float], list[float]]]:
        """Evenness and divergence of each step and sample, NaN where not defined."""
        maps = _peak_maps(self._places)
        final = next((each for each in reversed(maps) if each is not None), None)
        found = []
        before: Tensor | None = None
        for place, (step, peaks) in enumerate(self._places):
            # The calls that fill one map in parts are compared with what was there before the first of them.
            if place > 0 and (step.positions is None or step.index != self._places[place - 1][0].index):
                before = maps[place - 1]
            if peaks is None:
                nothing = [math.nan] * len(self._rows[0])
                found.append((nothing, nothing))
                continue
            uniform = torch.ones(len(peaks), 1, 1, dtype=torch.float64)
            reference = {"previous": before, "final": final, "uniform": uniform}[self.options.reference]
            found.append(_evenness_and_divergence(peaks, reference, step))
        return found


def _peak_maps(places: Sequence[tuple[Step, Tensor | None]]) -> list[Float[Tensor, "b h w"] | None]:
    """The peaks on the full grid after each step; the calls of one index fill one map in parts."""
    maps: list[Tensor | None] = []
    for place, (step, peaks) in enumerate(places):
        if peaks is None:
            maps.append(None)
            continue
        whole = peaks
        if step.positions is not None:
            so_far = maps[-1] if place > 0 and places[place - 1][0].index == step.index else None
            whole = peaks.new_zeros(len(peaks), step.scale.tokens) if so_far is None else so_far.flatten(1)
            whole = whole.scatter(1, step.positions.cpu(), peaks)
        maps.append(whole.unflatten(1, step.grid))
    return maps


def _evenness_and_divergence(
    peaks: Float[Tensor, "b n"], reference: Float[Tensor, "b h w"] | None, step: Step
) -> tuple[list[float], list[float]]:
    """Both indices over the tokens of a step, which on a partial map are those it predicts."""
    own = peaks[:, None, :, None]
    even = evenness(own).tolist()
    # On one token every distribution is the same.
    if reference is None or peaks.shape[1] == 1:
        return even, [math.nan] * len(peaks)
    there = regrid(reference.clamp_min(0.0), step.grid).flatten(1)
    if step.positions is not None:
        there = there.gather(1, step.positions.cpu())
    return even, divergence(own, there[:, None, :, None]).tolist()


def _on_grid(norms: Float[Tensor, "1 n"], step: Step, sample: int) -> Float[np.ndarray, "h w"]:
    if step.positions is None:
        return norms[0].reshape(step.grid).cpu().numpy()
    whole = norms.new_full((step.scale.tokens,), math.nan)
    return whole.scatter(0, step.positions[sample], norms[0]).reshape(step.grid).cpu().numpy()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

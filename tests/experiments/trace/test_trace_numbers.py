"""The numbers of a trace against scipy and written-out formulas, on full maps, partial maps and bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.special
import scipy.stats
import torch
from torch import Tensor

import hguide
from hguide import COND, UNCOND, Binary, Categorical, Sampler, StepRecord
from hguide.backends.toy import ToyGenerator
from hguide.errors import ConfigError
from hguide.experiments.trace.entropy import token_entropy
from hguide.experiments.trace.kept import kept_candidates
from hguide.experiments.trace.records import StepRow, TraceOptions, Tracer
from hguide.experiments.trace.residual import band_energies, band_names, check_edges, token_energy
from hguide.experiments.trace.signal import guidance_signal
from hguide.experiments.trace.summary import over_steps, summarise
from hguide.grids import Scale, Step
from hguide.priors import DSE, Nearest
from hguide.temperature import EntropyTemperature

CLOSE = {"rel": 1e-5, "abs": 1e-6}
SEEDS = (3, 4, 8)
TOYS = {
    "tokens": {},
    "parts of a map": {"calls": 3},
    "bits": {"channels": Binary(6)},
    "bits, parts of a map": {"channels": Binary(6), "calls": 2},
    "not square": {"grids": ((1, 1), (2, 3), (5, 7))},
}
every_toy = pytest.mark.parametrize("toy", [ToyGenerator(**each) for each in TOYS.values()], ids=TOYS.keys())


def traced(
    toy: ToyGenerator, guidance: str, sampler: Sampler | None = None, pictures: int = 0, **options: Any
) -> tuple[list[list[StepRow]], list[StepRecord]]:
    tracer, records = Tracer(toy.channels, sampler, TraceOptions(**options), pictures), []

    def look(record: StepRecord) -> None:
        tracer(record)
        records.append(record.keep())

    hguide.generate(toy, 1, guidance, sampler, seeds=SEEDS, on_step=look)
    return tracer.take(), records


def peaks_by_hand(record: StepRecord, sample: int, bits: bool) -> np.ndarray:
    """Peaks of the added signal, one per token, clipped at 0."""
    given, guided = (x[sample].double().flatten(0, -2).numpy() for x in (record.predictions[COND], record.logits))
    if bits:
        return np.abs(guided - given).max(-1) / 2
    n = (guided - guided.mean(-1, keepdims=True)) - (given - given.mean(-1, keepdims=True))
    return np.clip(n.max(-1), 0, None)


@every_toy
def test_size_and_evenness_of_what_is_added(toy: ToyGenerator) -> None:
    rows, records = traced(toy, "cfg(2.0) | ssg(0.5)")
    bits = isinstance(toy.channels, Binary)
    for k, record in enumerate(records):
        for i in range(len(SEEDS)):
            n = (record.logits - record.predictions[COND])[i].flatten(0, -2)
            n = n if bits else n - n.mean(-1, keepdim=True)
            assert rows[i][k].strength == pytest.approx(float(n.norm(dim=-1).mean()), rel=1e-4, abs=1e-5)
            peaks = peaks_by_hand(record, i, bits)
            assert rows[i][k].tokens == len(peaks)
            if len(peaks) == 1 or peaks.sum() == 0.0:
                assert rows[i][k].evenness is None
                continue
            wanted = scipy.stats.entropy(peaks / peaks.sum()) / math.log(len(peaks))
            assert rows[i][k].evenness == pytest.approx(wanted, **CLOSE)


def area(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Mass on a grid spread over another one, by fine squares that divide both."""
    h, w = values.shape
    fine = np.kron(values, np.ones((height, width)) / (height * width))
    return fine.reshape(height, h, width, w).sum((1, 3))


def distance(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence in bits."""
    p, q = p.ravel() / p.sum(), q.ravel() / q.sum()
    own = (scipy.stats.entropy(p, base=2) + scipy.stats.entropy(q, base=2)) / 2
    return float(scipy.stats.entropy((p + q) / 2, base=2) - own)


@pytest.mark.parametrize("reference", ["previous", "final", "uniform"])
def test_divergence_from_each_reference(reference: str) -> None:
    toy = ToyGenerator(grids=((1, 1), (2, 3), (5, 7), (6, 8)))
    rows, records = traced(toy, "cfg(w=2.0)", reference=reference)
    for i in range(len(SEEDS)):
        maps = [peaks_by_hand(record, i, False).reshape(record.step.grid) for record in records]
        for k, own in enumerate(maps):
            before = maps[k - 1] if k else None
            other = {"previous": before, "final": maps[-1], "uniform": np.ones_like(own)}[reference]
            if other is None or own.size == 1:
                assert rows[i][k].divergence is None
                continue
            assert rows[i][k].divergence == pytest.approx(distance(own, area(other, *own.shape)), **CLOSE)


@pytest.mark.parametrize("reference", ["previous", "final"])
def test_divergence_of_the_parts_of_a_map_is_over_their_tokens(reference: str) -> None:
    toy = ToyGenerator(calls=3)
    rows, records = traced(toy, "cfg(w=2.0)", reference=reference)
    parts = [record for record in records if record.step.positions is not None]
    assert len(parts) == 3
    for i in range(len(SEEDS)):
        whole = np.zeros(64)
        for record in parts:
            whole[record.step.positions[i].numpy()] = peaks_by_hand(record, i, False)
        before = peaks_by_hand(records[-4], i, False).reshape(5, 5)
        other = whole if reference == "final" else area(before, 8, 8).ravel()
        for part, row in zip(parts, rows[i][-3:], strict=True):
            wanted = distance(peaks_by_hand(part, i, False), other[part.step.positions[i].numpy()])
            assert row.divergence == pytest.approx(wanted, **CLOSE)


def test_the_contrast_is_given_less_null_and_missing_where_null_is() -> None:
    rows, records = traced(ToyGenerator(), "cfg(2.0)", signal="contrast", gauge="raw")
    assert all(sample[0].strength is None and sample[0].evenness is None for sample in rows)
    for k, record in enumerate(records[1:], 1):
        n = record.predictions[COND] - record.predictions[UNCOND]
        assert rows[1][k].strength == pytest.approx(float(n[1].flatten(0, 1).norm(dim=-1).mean()), **CLOSE)
    rows, _ = traced(ToyGenerator(), "ssg(0.5)", signal="contrast")
    assert all(row.strength is None for sample in rows for row in sample)


@pytest.mark.parametrize("gauge", ["centred", "log_softmax", "raw"])
def test_a_fixed_gauge_does_not_see_a_constant_per_token(gauge: str) -> None:
    _, records = traced(ToyGenerator(), "cfg(2.0)")
    record, draw = records[2], torch.Generator().manual_seed(0)
    shift = torch.randn(*record.logits.shape[:-1], 1, generator=draw)
    moved = StepRecord(**{**vars(record), "logits": record.logits + shift})
    one, other = (guidance_signal(each, Categorical(16), gauge=gauge) for each in (record, moved))
    assert torch.allclose(one, other, atol=1e-4) is (gauge != "raw")


@every_toy
def test_entropies_against_scipy(toy: ToyGenerator) -> None:
    rows, records = traced(toy, "cfg(2.0) | ssg(0.5)")
    for k, record in enumerate(records):
        for name, logits in (("entropy_given", record.predictions[COND]), ("entropy_guided", record.logits)):
            found = logits[2].double().flatten(0, -2).numpy()
            if isinstance(toy.channels, Binary):
                one = 1 / (1 + np.exp(-found))
                wanted = scipy.stats.bernoulli.entropy(one).sum(-1).mean()
            else:
                wanted = scipy.stats.entropy(scipy.special.softmax(found, -1), axis=-1).mean()
            assert getattr(rows[2][k], name) == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_kept_candidates_of_tokens_by_hand() -> None:
    logits = torch.log(torch.tensor([[[[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]]]]))
    step = Step(0, 1, 0, Scale(0, 1, 2))
    found = kept_candidates(logits, step, Sampler(top_p=0.7), Categorical(4))
    assert found.count.tolist() == [[2.0, 4.0]]
    wanted = [scipy.stats.entropy([0.5, 0.3]), math.log(4)]
    assert found.entropy[0].tolist() == pytest.approx(wanted)
    assert kept_candidates(logits, step, Sampler(top_k=1), Categorical(4)).count.tolist() == [[1.0, 4.0]]
    warm = kept_candidates(logits, step, Sampler(EntropyTemperature(), top_k=3), Categorical(4))
    assert warm.count.tolist() == [[3.0, 4.0]]
    cool = kept_candidates(logits, step, Sampler(0.5), Categorical(4))
    assert float(cool.entropy[0, 0]) == pytest.approx(scipy.stats.entropy([0.25, 0.09, 0.0225, 0.0025]))


def test_kept_values_of_bits_by_hand() -> None:
    differences = torch.logit(torch.tensor([[[[0.95, 0.6, 0.1, 0.5]]]]))
    step = Step(0, 1, 0, Scale(0, 1, 1))
    free = kept_candidates(differences, step, Sampler(), Binary(4))
    assert free.count.item() == 2.0
    assert free.entropy.item() == pytest.approx(token_entropy(differences, Binary(4)).item())
    # The rarer value has 0.05, 0.4, 0.1 and 0.5: at most 0.15 is dropped.
    some = kept_candidates(differences, step, Sampler(top_p=0.85), Binary(4))
    assert some.count.item() == pytest.approx(1.5)
    wanted = scipy.stats.bernoulli.entropy(0.6) + scipy.stats.bernoulli.entropy(0.5)
    assert some.entropy.item() == pytest.approx(float(wanted))
    assert kept_candidates(differences, step, Sampler(top_k=1), Binary(4)).count.item() == 1.0
    with pytest.raises(ConfigError, match="depends on the logits needs categorical ones"):
        kept_candidates(differences, step, Sampler(EntropyTemperature()), Binary(4))


@every_toy
def test_what_is_drawn_is_among_what_is_kept(toy: ToyGenerator) -> None:
    sampler = Sampler(0.8, top_p=0.6) if isinstance(toy.channels, Binary) else Sampler(0.8, top_k=5, top_p=0.9)
    rows, _ = traced(toy, "cfg(2.0)", sampler)
    for row in (row for sample in rows for row in sample):
        assert 1 <= row.kept_least <= row.kept <= row.kept_most <= (2 if isinstance(toy.channels, Binary) else 5)
        assert row.entropy_drawn < row.entropy_guided


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (5, 7), (8, 8)])
@pytest.mark.parametrize("edges", [(), (0.5,), (0.25, 0.5, 0.75), (0.1, 0.9)])
def test_band_energies_are_squares_of_the_dct(grid: tuple[int, int], edges: tuple[float, ...]) -> None:
    residual = torch.randn(2, *grid, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    spectrum = scipy.fft.dctn(residual.numpy(), axes=(1, 2), norm="ortho") ** 2
    rows, columns = (np.arange(side) for side in grid)
    wanted, below = [], np.zeros(grid, bool)
    for edge in (*edges, 1.0):
        inside = (rows < math.ceil(edge * grid[0]))[:, None] & (columns < math.ceil(edge * grid[1]))
        wanted.append(spectrum[:, inside & ~below].sum((1, 2)) / (grid[0] * grid[1]))
        below = inside
    found = band_energies(residual, edges)
    np.testing.assert_allclose(found.numpy(), np.stack(wanted, 1), atol=1e-10)
    torch.testing.assert_close(found.sum(1), token_energy(residual))


@every_toy
def test_the_residual_is_that_of_the_map_ssg_receives(toy: ToyGenerator) -> None:
    rows, records = traced(toy, "cfg(2.0) | ssg(0.5)", prior=Nearest())
    before: Tensor | None = None
    for k, record in enumerate(records):
        t = 2.0 * record.step.index / (toy.count - 1)
        logits = (1 + t) * record.predictions[COND].double()
        if t > 0:
            logits = logits - t * record.predictions[UNCOND].double()
        for i in range(len(SEEDS)):
            if before is None:
                assert rows[i][k].residual is rows[i][k].share is rows[i][k].bands is None
                continue
            carried = Nearest()(before, record.step.grid)[i].flatten(0, 1)
            if record.step.positions is not None:
                carried = carried[record.step.positions[i]]
            own = logits[i].flatten(0, -2)
            residual = own - carried
            if isinstance(toy.channels, Categorical):
                own, residual = own - own.mean(-1, keepdim=True), residual - residual.mean(-1, keepdim=True)
            energy = float(residual.square().sum(-1).mean())
            assert rows[i][k].residual == pytest.approx(energy, rel=1e-4)
            assert rows[i][k].share == pytest.approx(energy / float(own.square().sum(-1).mean()), rel=1e-4)
            if record.step.positions is None:
                assert sum(rows[i][k].bands) == pytest.approx(energy, rel=1e-4)
            else:
                assert rows[i][k].bands is None
        before = logits if record.step.positions is None else before


def test_batches_are_independent() -> None:
    toy, together = ToyGenerator(), []
    tracer = Tracer(toy.channels, options=TraceOptions(reference="final"), pictures=2)
    for seeds in ([1, 2], [5]):
        hguide.generate(toy, 1, "cfg | ssg", seeds=seeds, on_step=tracer)
        together += tracer.take()
    assert [sample[0].picture is not None for sample in together] == [True, True, False]
    alone = Tracer(toy.channels, options=TraceOptions(reference="final"))
    hguide.generate(toy, 1, "cfg | ssg", seeds=[5], on_step=alone)
    for one, other in zip(together[2], alone.take()[0], strict=True):
        for name in ("strength", "evenness", "divergence", "residual", "kept", "entropy_drawn"):
            wanted = getattr(other, name)
            assert getattr(one, name) == (None if wanted is None else pytest.approx(wanted, **CLOSE))


def test_heat_lies_where_the_step_predicts() -> None:
    rows, records = traced(ToyGenerator(calls=3), "cfg(2.0)", pictures=2)
    assert rows[2][0].heat is None
    for i in (0, 1):
        for row, record in zip(rows[i], records, strict=True):
            assert row.heat.shape == record.step.grid
            known = np.isfinite(row.heat).ravel()
            positions = record.step.positions
            wanted = range(known.size) if positions is None else sorted(positions[i].tolist())
            assert np.flatnonzero(known).tolist() == list(wanted)
            assert row.heat.ravel()[known].mean() == pytest.approx(row.strength, **CLOSE)


def test_summary_over_the_samples() -> None:
    rows, _ = traced(ToyGenerator(), "cfg(2.0)")
    steps = summarise(rows)
    assert [step.grid for step in steps] == [(1, 1), (2, 2), (3, 3), (5, 5), (8, 8)]
    values = [sample[3].strength for sample in rows]
    spread = steps[3].numbers["strength"]
    assert (spread.samples, spread.mean) == (3, pytest.approx(np.mean(values)))
    assert (spread.low, spread.high) == pytest.approx(np.quantile(values, (0.1, 0.9)))
    assert steps[0].numbers["evenness"] is None
    assert steps[0].bands is None
    assert len(steps[1].bands) == 4
    known = [[(row.evenness, row.tokens) for row in sample if row.evenness is not None] for sample in rows]
    wanted = np.mean([np.average([v for v, _ in each], weights=[n for _, n in each]) for each in known])
    assert over_steps(rows, "evenness") == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signal": "adde"}, "unknown signal 'adde': did you mean 'added'"),
        ({"gauge": "centered"}, "unknown gauge 'centered': did you mean 'centred'"),
        ({"reference": "last"}, "unknown reference 'last': Known: final, previous, uniform"),
        ({"edges": (0.5, 0.25)}, r"ascend within \(0, 1\), got \[0.5, 0.25\]"),
        ({"edges": (1.0,)}, r"ascend within \(0, 1\), got \[1.0\]"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TraceOptions(**options)


def test_defaults() -> None:
    assert TraceOptions().prior == DSE()
    assert check_edges([0.5]) == (0.5,)
    assert band_names((0.25, 0.5)) == ["0 to 0.25", "0.25 to 0.5", "0.5 to 1"]

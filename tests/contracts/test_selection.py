"""Selection and order of logits: both libraries against torch's full sort, and draws that do not depend on which."""

from __future__ import annotations

import pytest
import torch

from hguide import selection
from hguide.grids import Scale, Step
from hguide.noise import SeededNoise
from hguide.sampling import Sampler
from hguide.selection import ascending, largest

STEP = Step(1, 4, 0, Scale(1, 5, 7))
LIBRARIES = pytest.mark.parametrize("few_threads", [0, 1 << 10], ids=["torch", "numpy"])


def logits_of(dtype=torch.float32, ties=False, channels=300):
    logits = torch.randn(2, 35, channels, generator=torch.Generator().manual_seed(channels)) * 3
    return (logits.round() if ties else logits).to(dtype)


@LIBRARIES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [1, 17, 299])
def test_the_largest_are_those_of_a_full_sort(monkeypatch, few_threads, dtype, ties, k):
    monkeypatch.setattr(selection, "_FEW_THREADS", few_threads)
    logits = logits_of(dtype, ties)
    values, channels, tied = largest(logits, k)
    ordered = logits.sort(dim=-1, descending=True).values
    assert torch.equal(values.sort(dim=-1, descending=True).values, ordered[..., :k])
    assert torch.equal(logits.gather(-1, channels), values)
    assert all(len(set(row)) == k for row in channels.flatten(0, 1).tolist())
    assert tied == bool((ordered[..., k] == ordered[..., k - 1]).any())


@LIBRARIES
@pytest.mark.parametrize("ties", [False, True])
def test_ascending_is_a_full_sort(monkeypatch, few_threads, ties):
    monkeypatch.setattr(selection, "_FEW_THREADS", few_threads)
    logits = logits_of(ties=ties)
    values, order = ascending(logits)
    assert torch.equal(values, logits.sort(dim=-1).values)
    assert torch.equal(logits.gather(-1, order), values)


def test_many_positions_go_in_blocks(monkeypatch):
    monkeypatch.setattr(selection, "_FEW_THREADS", 1 << 10)
    logits = logits_of()
    whole = largest(logits, 40), ascending(logits)
    monkeypatch.setattr(selection, "_BLOCK", 900)  # three positions, the last block of one
    for mine, theirs in zip(whole, (largest(logits, 40), ascending(logits)), strict=True):
        assert torch.equal(mine[0].sort(-1).values, theirs[0].sort(-1).values)
        assert torch.equal(mine[1].sort(-1).values, theirs[1].sort(-1).values)


def test_a_view_of_other_logits_is_read_in_its_own_order(monkeypatch):
    monkeypatch.setattr(selection, "_FEW_THREADS", 1 << 10)
    strided = logits_of().transpose(0, 1)[::2]
    assert torch.equal(ascending(strided)[0], strided.sort(dim=-1).values)
    assert torch.equal(largest(strided, 5)[0].sort(-1).values, strided.sort(dim=-1).values[..., -5:])


@pytest.mark.parametrize(("top_k", "top_p"), [(50, 0.0), (0, 0.9), (50, 0.9), (1, 0.5)])
def test_draws_do_not_depend_on_the_library(monkeypatch, top_k, top_p):
    logits = logits_of().view(2, 5, 7, 300)
    sampler, drawn = Sampler(top_k=top_k, top_p=top_p), []
    for few_threads in (0, 1 << 10):
        monkeypatch.setattr(selection, "_FEW_THREADS", few_threads)
        drawn.append(sampler.categorical(logits, SeededNoise([3, 5]), STEP))
    assert torch.equal(*drawn)


def test_no_noise_is_made_for_what_every_position_drops():
    logits = logits_of().view(2, 5, 7, 300)
    kept = Sampler(top_p=0.5).candidates(logits, STEP)
    assert kept.values.shape[-1] == int(kept.count().max())
    assert kept.channels.shape == kept.values.shape

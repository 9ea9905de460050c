"""The contract of priors."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hguide.grids import Grid, Scale, Step
from hguide.guidance import parse_prior, text_of
from hguide.priors import LinearPrior, Prior, registry
from hguide.testing.expect import expect

__all__ = ["check_prior"]

GRIDS: tuple[tuple[Grid, Grid], ...] = (
    ((1, 1), (2, 2)),
    ((1, 1), (3, 5)),
    ((4, 5), (6, 8)),
    ((5, 5), (5, 5)),
    ((3, 7), (4, 9)),
)


def check_prior(prior: Prior, grids: Sequence[tuple[Grid, Grid]] = GRIDS) -> None:
    """Check shapes, dtypes, purity, independence of batch and channels and, for a linear prior, its matrix.

    Args:
        prior: to check.
        grids: pairs (source, target) to try.

    Raises:
        AssertionError: names what is not met.
    """
    name = type(prior).__name__
    hash(prior)
    for source, target in grids:
        _check_pair(prior, source, target, f"{name} from {source} to {target}")
    if registry.name_of(type(prior)) is not None:
        expect(parse_prior(text_of(prior)) == prior, f"{name}: {text_of(prior)} does not parse back.")


def _check_pair(prior: Prior, source: Grid, target: Grid, where: str) -> None:
    step = Step(1, 3, 0, Scale(1, *target))
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(3, *source, 4, generator=draw, dtype=torch.float64)
    kept = logits.clone()
    carried = prior(logits, target, step)
    expect(carried.shape == (3, *target, 4), f"{where}: gives {tuple(carried.shape)}.")
    expect(carried.dtype == logits.dtype, f"{where}: changes the dtype to {carried.dtype}.")
    expect(torch.equal(logits, kept), f"{where}: changes its input.")
    alone = prior(logits[1:2, ..., 2:3], target, step)
    expect(torch.allclose(alone, carried[1:2, ..., 2:3], atol=1e-10), f"{where}: mixes samples or channels.")
    half = prior(logits.to(torch.bfloat16), target, step)
    expect(half.dtype == torch.bfloat16, f"{where}: does not keep bfloat16.")
    if isinstance(prior, LinearPrior):
        matrix = prior.matrix(source, target, step)
        wanted = (target[0] * target[1], source[0] * source[1])
        expect(tuple(matrix.shape) == wanted, f"{where}: its matrix is {tuple(matrix.shape)}, not {wanted}.")
        expect(matrix.dtype == torch.float64, f"{where}: its matrix is {matrix.dtype}, not float64.")
        dense = torch.einsum("ts,bsv->btv", matrix, logits.flatten(1, 2)).unflatten(1, target)
        expect(torch.allclose(dense, carried, atol=1e-10), f"{where}: its matrix and its call differ.")

"""What VAR's streams are made of: replaced embeddings, blurred queries, skipped blocks, parts of a cache."""

from __future__ import annotations

import pytest
import torch
from dense_var import perturbed
from torch import Tensor

from hguide import COND, Corruption, Perturbation
from hguide.backends.cache import KeyValueCache
from hguide.backends.corruption import corrupt, first_rewritten
from hguide.backends.perturbation import PerturbedPass, blur_matrix, layers_of
from hguide.errors import ShapeError
from hguide.grids import Scale, Step
from hguide.noise import SeededNoise


def test_a_block_outside_the_layers_is_left_alone() -> None:
    x, y = torch.randn(4, 3, 8), torch.randn(4, 3, 8)
    changed = PerturbedPass([COND, perturbed("slg", (2,))], 2, 4, (1, 3))
    assert torch.equal(changed.on_block(1, x, y.clone()), y)
    skipped = changed.on_block(2, x, y.clone())
    assert torch.equal(skipped[:2], y[:2])
    assert torch.equal(skipped[2:], x[2:])


@pytest.mark.parametrize("grid", [(1, 1), (3, 4), (16, 16)])
def test_blur(grid: tuple[int, int]) -> None:
    tokens = grid[0] * grid[1]
    mean = torch.full((tokens, tokens), 1.0 / tokens, dtype=torch.float64)
    torch.testing.assert_close(blur_matrix(grid, float("inf")), mean)
    torch.testing.assert_close(blur_matrix(grid, 0.0), torch.eye(tokens, dtype=torch.float64))
    torch.testing.assert_close(blur_matrix(grid, 1.3).sum(1), torch.ones(tokens, dtype=torch.float64))


def test_layers() -> None:
    assert layers_of(Perturbation("pag"), 16) == set(range(5, 11))
    assert layers_of(Perturbation("slg"), 1) == {0}
    assert layers_of(Perturbation("soft"), 3) == {0, 1, 2}
    assert layers_of(Perturbation("pag", (7,)), 16) == {7}


def inputs(rows: int, length: int) -> Tensor:
    return torch.randn(rows, length, 8, generator=torch.Generator().manual_seed(0))


def equal_rows(changed: Tensor, x: Tensor) -> Tensor:
    """Which embedding of x each one of `changed` is, bit for bit: `(rows, l, l)`."""
    return (changed[:, :, None] == x[:, None]).all(-1)


def scale_step(k: int) -> Step:
    return Step(k, 10, 0, Scale(k, 16, 16))


def test_replaced_embeddings_come_whole_from_other_places_of_the_scale() -> None:
    """The values of a scale stay: every corrupted embedding is one of its row, and the expected part is replaced."""
    x, noise = inputs(6, 256), SeededNoise([1, 2, 3])
    changed = corrupt(x, Corruption(0.1), noise, scale_step(9), 424)
    same = equal_rows(changed, x)
    assert (same.sum(-1) == 1).all()
    own = same.diagonal(dim1=1, dim2=2)
    assert (~own).float().mean().item() == pytest.approx(0.1, abs=0.04)
    assert torch.equal(own[:3], own[3:])  # the null rows of a sample share its draws
    assert not torch.equal(own[0], own[1])
    everywhere = corrupt(x, Corruption(1.0), noise, scale_step(9), 424)
    assert not equal_rows(everywhere, x).diagonal(dim1=1, dim2=2).any()
    torch.testing.assert_close(everywhere.mean(1), x.mean(1), atol=0.35, rtol=0)
    more = equal_rows(corrupt(x, Corruption(0.3), noise, scale_step(9), 424), x).diagonal(dim1=1, dim2=2)
    assert (more <= own).all()


def test_donors_are_uniform_over_the_other_places() -> None:
    x, noise = torch.eye(4)[None].repeat(3000, 1, 1), SeededNoise(range(3000))
    donors = corrupt(x, Corruption(1.0), noise, scale_step(1), 1).mean(0)
    torch.testing.assert_close(donors, (1.0 - torch.eye(4)) / 3.0, atol=0.04, rtol=0)
    single = torch.randn(2, 1, 8)
    assert torch.equal(corrupt(single, Corruption(1.0), SeededNoise([0, 1]), scale_step(0), 0), single)


def test_corruption_depends_on_seed_step_and_place() -> None:
    x = inputs(2, 64)
    changed = corrupt(x, Corruption(0.5), SeededNoise([7, 8]), scale_step(3), 14)
    assert torch.equal(changed[1:], corrupt(x[1:], Corruption(0.5), SeededNoise([8]), scale_step(3), 14))
    assert not torch.equal(changed, corrupt(x, Corruption(0.5), SeededNoise([7, 8]), scale_step(4), 14))
    assert not torch.equal(changed, corrupt(x, Corruption(0.5), SeededNoise([7, 8]), scale_step(3), 15))


def test_what_is_run_again() -> None:
    lengths = (1, 4, 9, 16)
    fixed = [first_rewritten(Corruption(0.1), k, lengths) for k in range(4)]
    assert fixed == [0, 1, 1, 2]  # step k where nothing is
    assert [first_rewritten(Corruption(0.1, redraw=True), k, lengths) for k in range(4)] == [0, 1, 1, 1]
    assert [first_rewritten(Corruption(0.1, queries=True), k, lengths) for k in range(4)] == [0, 1, 2, 3]
    assert [first_rewritten("sampled", k, lengths) for k in range(4)] == [0, 1, 2, 3]
    assert [first_rewritten(Corruption(0.1, redraw=True), k, (4, 9, 16)) for k in range(3)] == [0, 0, 0]


def test_a_part_of_a_cache_shares_its_storage_but_not_its_end() -> None:
    cache = KeyValueCache(1, 3, 1, 4, 2)
    for tokens in (1, 2):
        cache.append(0, torch.zeros(3, 1, tokens, 2), torch.zeros(3, 1, tokens, 2))
        cache.advance(tokens)
    part = cache.part(1, 3)
    part.rewind(1)
    part.append(0, torch.ones(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
    assert (part.rows, part.end, cache.rows, cache.end) == (2, 1, 3, 3)
    keys, _ = cache.append(0, torch.full((3, 1, 1, 2), 5.0), torch.zeros(3, 1, 1, 2))
    assert keys[:, 0, :, 0].tolist() == [[0, 0, 0, 5], [0, 1, 1, 5], [0, 1, 1, 5]]
    with pytest.raises(ShapeError, match="rows 2 to 4: 3 are alive"):
        cache.part(2, 4)

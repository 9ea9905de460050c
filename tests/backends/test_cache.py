"""The key-value cache: writes in place, forgets on demand, refuses what does not fit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hguide.backends.cache import KeyValueCache
from hguide.errors import ConfigError, ShapeError


def tokens(count: int, rows: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = torch.randn(2, rows, 2, count, 4, generator=torch.Generator().manual_seed(seed))
    return keys, values


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=5), rows=st.lists(st.integers(0, 3), min_size=5, max_size=5)
)
def test_equals_concatenation(counts: list[int], rows: list[int]) -> None:
    cache = KeyValueCache(2, 3, 2, sum(counts), 4)
    past = [tuple(torch.empty(3, 2, 0, 4) for _ in range(2)) for _ in range(2)]
    alive = 3
    for step, count in enumerate(counts):
        for layer in range(2):
            new = tokens(count, alive, seed=10 * step + layer)
            past[layer] = tuple(
                torch.cat([old[:alive], more], dim=2) for old, more in zip(past[layer], new, strict=True)
            )
            found = cache.append(layer, *new)
            assert all(torch.equal(a, b) for a, b in zip(found, past[layer], strict=True))
        cache.advance(count)
        alive = min(alive, rows[step])
        cache.keep(alive)
    assert (cache.end, cache.rows) == (sum(counts), alive)


def test_nothing_is_copied_when_rows_are_dropped() -> None:
    cache = KeyValueCache(1, 3, 2, 8, 4)
    before, _ = cache.append(0, *tokens(2))
    cache.keep(2)
    after, _ = cache.append(0, *tokens(2, rows=2))
    assert after.data_ptr() == before.data_ptr()


def test_a_step_may_be_repeated() -> None:
    cache = KeyValueCache(1, 3, 2, 8, 4)
    cache.append(0, *tokens(3))
    cache.advance(3)
    cache.append(0, *tokens(5, seed=1))
    cache.advance(5)
    cache.rewind(3)
    keys, values = cache.append(0, *tokens(2, seed=2))
    assert torch.equal(keys, torch.cat([tokens(3)[0], tokens(2, seed=2)[0]], dim=2))
    assert torch.equal(values, torch.cat([tokens(3)[1], tokens(2, seed=2)[1]], dim=2))


@pytest.mark.parametrize(("dtype", "itemsize"), [(torch.float32, 4), (torch.bfloat16, 2), (torch.float64, 8)])
def test_size_in_bytes(dtype: torch.dtype, itemsize: int) -> None:
    # VAR-d16 with CFG holds 22.3 million keys per image; the meta device needs no memory
    cache = KeyValueCache(16, 2, 16, 680, 64, dtype=dtype, device="meta")
    assert cache.nbytes == 2 * 22_282_240 * itemsize
    cache.keep(1)
    assert cache.nbytes == 22_282_240 * itemsize


def test_stores_in_its_own_type() -> None:
    keys, values = KeyValueCache(1, 3, 2, 8, 4, dtype=torch.bfloat16).append(0, *tokens(2))
    assert keys.dtype == values.dtype == torch.bfloat16
    assert torch.equal(keys, tokens(2)[0].bfloat16())


def test_what_does_not_fit_is_refused() -> None:
    cache = KeyValueCache(1, 3, 2, 4, 4)
    with pytest.raises(ShapeError, match="room for 4 tokens, 0 are used, 5 more"):
        cache.append(0, *tokens(5))
    with pytest.raises(ShapeError, match=r"drop rows with keep\(\)"):
        cache.append(0, *tokens(2, rows=2))
    with pytest.raises(ShapeError, match="cannot advance by 5"):
        cache.advance(5)
    with pytest.raises(ShapeError, match="cannot rewind to 1"):
        cache.rewind(1)
    with pytest.raises(ShapeError, match="cannot keep 4 rows: 3"):
        cache.keep(4)
    with pytest.raises(ConfigError, match="heads=-1"):
        KeyValueCache(1, 1, -1, 1, 1)

"""Rows of a compiled prior as a kernel reads them."""

from __future__ import annotations

import pytest
import torch

from hguide.priors.compiled import aligned_rows, rows_are_aligned


@pytest.mark.parametrize("columns", [1, 63, 64, 65, 169])
def test_aligned_rows_are_the_matrix_with_zeros_between(columns: int) -> None:
    matrix = torch.randn(5, columns)
    aligned = aligned_rows(matrix)
    assert torch.equal(aligned, matrix)
    assert aligned.stride(0) % 64 == 0
    assert rows_are_aligned(aligned)
    whole = aligned.as_strided((5, aligned.stride(0)), aligned.stride())
    assert not whole[:, columns:].any()


def test_rows_that_are_not_aligned_are_told() -> None:
    assert not rows_are_aligned(torch.randn(5, 63))
    assert not rows_are_aligned(torch.randn(64, 5).t())
    # The last row ends before its piece does.
    assert not rows_are_aligned(torch.randn(4 * 64 + 5).as_strided((5, 5), (64, 1)))

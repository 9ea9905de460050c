"""SSG's update on a CUDA device, where one kernel does small priors, against float64."""

from __future__ import annotations

import pytest
import torch

from hguide.priors import DSE
from hguide.priors.compiled import operator
from hguide.priors.operators import Factors, extrapolate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 0.3, torch.float16: 0.04}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels", [1, 32, 100, 4096])
@pytest.mark.parametrize(
    ("source", "target"),
    [((1, 1), (2, 2)), ((2, 3), (4, 5)), ((13, 13), (16, 16)), ((18, 18), (24, 24)), ((24, 24), (32, 32))],
)
def test_the_update_is_that_of_float64(
    source: tuple[int, int], target: tuple[int, int], channels: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(channels)
    logits, previous = (5 * torch.randn(3, *grid, channels, generator=generator) for grid in (target, source))
    logits, previous = logits.to("cuda", dtype), previous.to("cuda", dtype)
    matrix = operator(DSE(), source, target, None, logits.device, dtype)
    if isinstance(matrix, Factors):
        pytest.skip("factors are products of their own")
    found = extrapolate(logits, previous, matrix, 0.7)
    prior = (matrix.double() @ previous.double().flatten(1, 2)).view(logits.shape)
    wanted = logits.double() + 0.7 * (logits.double() - prior)
    assert (found.double() - wanted).abs().max() <= TOLERANCE[dtype]
    assert torch.equal(extrapolate(logits, previous, matrix, 0.7, out=logits), found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("source", "target", "batch"),
    [((8, 8), (10, 10), 16), ((13, 13), (16, 16), 5), ((18, 17), (24, 23), 3), ((27, 27), (36, 36), 1)],
)
def test_large_maps_go_through_the_copy_engine(
    source: tuple[int, int], target: tuple[int, int], batch: int, dtype: torch.dtype
) -> None:
    """Where the GPU has one; and where a map does not begin at an address that it reads, another way gives the same."""
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs a GPU with a copy engine")
    from hguide.priors import update_tma_kernel

    generator = torch.Generator().manual_seed(batch)
    logits, previous = (5 * torch.randn(batch, *grid, 4096, generator=generator) for grid in (target, source))
    logits, previous = logits.to("cuda", dtype), previous.to("cuda", dtype)
    matrix = operator(DSE(), source, target, None, logits.device, dtype)
    prior = (matrix.double() @ previous.double().flatten(1, 2)).view(logits.shape)
    wanted = logits.double() + 0.7 * (logits.double() - prior)
    aligned = torch.empty_like(logits)
    shifted = torch.empty(logits.numel() + 1, device="cuda", dtype=dtype)[1:].view(logits.shape)
    flat, before = logits.flatten(1, 2), previous.flatten(1, 2)
    assert update_tma_kernel.takes(flat, before, matrix, aligned.flatten(1, 2))
    assert not update_tma_kernel.takes(flat, before, matrix, shifted.flatten(1, 2))
    for out in (aligned, shifted):
        extrapolate(logits, previous, matrix, 0.7, out=out)
        assert (out.double() - wanted).abs().max() <= TOLERANCE[dtype]

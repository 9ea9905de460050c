"""The noise of a CUDA device, where one kernel draws it, against the CPU's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hguide.grids import Scale, Step
from hguide.noise import SeededNoise

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SEEDS = [0, 5, (1 << 63) - 1]
STEP = Step(3, 10, 2, Scale(3, 2, 2))
GIVEN_PLACES = torch.tensor([[4095, 0, 7], [1, 2, 3], [70000, 5, 5]])
GIVEN_TOKENS = torch.arange(3 * 3 * 1500).view(3, 3, 1500) % 16411


@pytest.mark.parametrize("channels", [1, 7, 1500, GIVEN_TOKENS])
@pytest.mark.parametrize("positions", [3, GIVEN_PLACES, GIVEN_PLACES[:1]])
def test_draws_are_those_of_the_cpu(positions: int | Tensor, channels: int | Tensor) -> None:
    cpu, cuda = SeededNoise(SEEDS), SeededNoise(SEEDS, "cuda")

    def drawn(noise: SeededNoise, kind: str) -> Tensor:
        places, tokens = (n if isinstance(n, int) else n.to(noise.device) for n in (positions, channels))
        return getattr(noise, kind)(STEP, "token", places, tokens).cpu()

    assert torch.equal(drawn(cuda, "uniform"), drawn(cpu, "uniform"))
    for kind in ("exponential", "gumbel", "normal"):
        torch.testing.assert_close(drawn(cuda, kind), drawn(cpu, kind), atol=2e-6, rtol=2e-6)


def test_the_order_is_that_of_the_cpu() -> None:
    cpu, cuda = SeededNoise(SEEDS), SeededNoise(SEEDS, "cuda")
    assert torch.equal(cuda.order(STEP, "order", 1000).cpu(), cpu.order(STEP, "order", 1000))

"""SSG on masked or visible positions alone."""

from __future__ import annotations

import pytest
import torch

from hguide.errors import ConfigError
from hguide.grids import Scale, Step
from hguide.guidance import SSG, parse
from hguide.priors import LowPass
from hguide.schedules import Constant
from hguide.streams import COND

V, GRID = 5, (2, 3)
VISIBLE = torch.tensor([[True, False, False, True, False, True], [False] * 6])


def step(index: int, visible: torch.Tensor | None = VISIBLE, positions: torch.Tensor | None = None) -> Step:
    return Step(index, 4, 0, Scale(index, *GRID), positions=positions, visible=visible)


def maps() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(2, *GRID, V, generator=draw), torch.randn(2, *GRID, V, generator=draw)


@pytest.mark.parametrize("positions", ["all", "masked", "visible"])
def test_it_acts_at_the_chosen_positions_and_remembers_all(positions: str) -> None:
    ssg = SSG(0.7, prior=LowPass(1.0), schedule=Constant(), positions=positions)
    first, second = maps()
    logits, memory = ssg.apply({COND: first}, step(0), {})
    assert torch.equal(logits, first)
    guided, memory = ssg.apply({COND: second}, step(1), memory)
    acts = {"all": torch.ones_like(VISIBLE), "masked": ~VISIBLE, "visible": VISIBLE}[positions].view(2, *GRID, 1)
    assert torch.allclose(guided, torch.where(acts, second + 0.7 * (second - first), second), atol=1e-5)
    again, _ = ssg.apply({COND: first}, step(2), memory)
    assert torch.allclose(again, torch.where(acts, first + 0.7 * (first - second), first), atol=1e-5)


def test_partial_maps_take_their_part_of_the_mask() -> None:
    ssg = SSG(0.7, prior=LowPass(1.0), schedule=Constant(), positions="masked")
    first, second = maps()
    _, memory = ssg.apply({COND: first}, step(0), {})
    places = torch.tensor([[0, 4, 1], [5, 2, 0]])
    rows = places[..., None].expand(-1, -1, V)
    now, before = second.flatten(1, 2).gather(1, rows), first.flatten(1, 2).gather(1, rows)
    guided, _ = ssg.apply({COND: now}, step(1, positions=places), memory)
    acts = ~VISIBLE.gather(1, places)[..., None]
    assert torch.allclose(guided, torch.where(acts, now + 0.7 * (now - before), now), atol=1e-5)


def test_text_form_and_errors() -> None:
    text = "ssg(0.5, prior=lowpass, positions=masked)"
    assert str(parse(text)) == text
    assert "positions" not in str(SSG())
    with pytest.raises(ConfigError, match="unknown positions 'mask': did you mean 'masked'"):
        SSG(positions="mask")
    ssg = SSG(0.7, prior=LowPass(1.0), schedule=Constant(), positions="masked")
    _, memory = ssg.apply({COND: maps()[0]}, step(0, None), {})
    with pytest.raises(ConfigError, match="needs a generator that tells which tokens are known"):
        ssg.apply({COND: maps()[1]}, step(1, None), memory)

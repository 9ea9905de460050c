"""The image of a seed depends on nothing else, whatever the family: batches of 1, 8 and 64, order, and other seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captured_families import family as with_conditions
from tiny_hart import text as hart_text
from tiny_hart import tiny_hart
from tiny_infinity import text as infinity_text
from tiny_infinity import tiny_infinity
from tiny_switti import text as switti_text
from tiny_switti import tiny_switti
from tiny_vq_diffusion import tiny_vq_diffusion

from hguide.generate import generate
from hguide.generator import ScaleGenerator

FAMILIES: dict[str, Callable[[], tuple[ScaleGenerator, Any]]] = {
    "hart": lambda: (tiny_hart(), hart_text(1)),
    "hart, partial maps": lambda: (tiny_hart().with_options(maskgit_iterations=3), hart_text(1)),
    "infinity": lambda: (tiny_infinity(), infinity_text(5)),
    "infinity, patches": lambda: (tiny_infinity(True), infinity_text(5)),
    "switti": lambda: (tiny_switti(), switti_text(1)),
    "switti, autoregressive": lambda: (tiny_switti(autoregressive=True), switti_text(1)),
    "vq_diffusion": lambda: (tiny_vq_diffusion(), 1),
}
GUIDANCE = "cfg(w=2) | ssg(0.5)"
PICKED = (63, 0, 31)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_image_of_a_seed_is_its_own(family: str) -> None:
    model, condition = FAMILIES[family]()
    alone = generate(model, condition, GUIDANCE, seeds=PICKED, deterministic=True)
    assert not torch.equal(alone[0], alone[1])
    again = generate(model, condition, GUIDANCE, seeds=PICKED[1::-1], deterministic=True)
    assert torch.equal(again.flip(0), alone[:2])
    for size in (8, 64):
        # Products of other batch shapes differ in their last bits, which may move a token that lies near a tie.
        batched = generate(model, condition, GUIDANCE, seeds=range(64), batch_size=size)[list(PICKED)]
        same = [torch.allclose(one, other, atol=1e-3) for one, other in zip(batched, alone, strict=True)]
        assert sum(same) >= 2, f"{3 - sum(same)} of 3 images differ in batches of {size}"


@pytest.mark.parametrize("name", ["hart", "infinity", "switti", "vq-diffusion", "vq-diffusion, texts"])
def test_negatives_follow_their_seeds(name: str) -> None:
    each = with_conditions(name)
    condition, *negatives = each.conditions
    together = generate(each.model, condition, "cfg(w=3)", seeds=[1, 2, 3], negative=negatives, deterministic=True)
    for place, negative in enumerate(negatives):
        alone = generate(each.model, condition, "cfg(w=3)", seeds=[place + 1], negative=negative, deterministic=True)
        assert torch.equal(together[place : place + 1], alone)
    batched = generate(each.model, condition, "cfg(w=3)", seeds=[1, 2, 3], negative=negatives)
    torch.testing.assert_close(batched, together, atol=1e-4, rtol=0)
    captured, capture = each.captured()
    found = generate(captured, condition, "cfg(w=3)", seeds=[1, 2, 3], negative=negatives)
    torch.testing.assert_close(found, together, atol=1e-4, rtol=0)
    assert capture.captures == 1

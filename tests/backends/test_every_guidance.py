"""Every registered method on every family: it runs, or is refused with the reason that the page names."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_hart import text as hart_text
from tiny_hart import tiny_hart
from tiny_infinity import text as infinity_text
from tiny_infinity import tiny_infinity
from tiny_switti import text as switti_text
from tiny_switti import tiny_switti
from tiny_vq_diffusion import tiny_vq_diffusion

import hguide
from hguide.errors import StreamError
from hguide.generator import ScaleGenerator
from hguide.guidance import registry

PAGE = Path(__file__).parents[2] / "docs" / "guidance.md"
REASONS = {
    "serves no corrupted prefix": "no corrupted prefix",
    "serves no perturbation": "no such pass",
    "needs full maps": "full maps only",
}
FAMILIES = ("`var`", "`hart`", "`hart`, partial maps", "`infinity`", "`switti`", "`vq_diffusion`")


def model_of(family: str) -> tuple[ScaleGenerator, Any]:
    """A model, and a condition for it."""
    if family == "`var`":
        return hguide.load("landuse-var"), 3
    if family == "`infinity`":
        return tiny_infinity(), infinity_text(5)
    if family == "`switti`":
        return tiny_switti(), switti_text(1)
    if family == "`vq_diffusion`":
        return tiny_vq_diffusion(), 1
    hart = tiny_hart()
    return (hart.with_options(maskgit_iterations=3) if "partial" in family else hart), hart_text(1)


def outcome(name: str, model: ScaleGenerator, condition: Any) -> str:
    """What the page says of a method on a family."""
    weak = copy.copy(model)  # another object, so a lender rather than the model itself
    method = registry.get(name)()
    models = {"weak": weak} if name == "autoguidance" else None
    try:
        images = hguide.generate(model, condition, method, seeds=[0], models=models)
    except StreamError as error:
        return next(word for reason, word in REASONS.items() if reason in str(error))
    assert torch.isfinite(images).all()
    return "yes"


def table() -> list[str]:
    """The table of the page."""
    columns = []
    for family in FAMILIES:
        model, condition = model_of(family)
        columns.append({name: outcome(name, model, condition) for name in registry})
    lines = [f"| | {' | '.join(FAMILIES)} |", "|---" * (len(FAMILIES) + 1) + "|"]
    return [*lines, *(f"| `{name}` | {' | '.join(column[name] for column in columns)} |" for name in registry)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_says_what_happens(family: str) -> None:
    model, condition = model_of(family)
    place = 1 + FAMILIES.index(family)
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    said = {row[0].strip(" `"): row[place].strip() for row in rows if len(row) == 1 + len(FAMILIES)}
    assert said == {name: outcome(name, model, condition) for name in registry}


if __name__ == "__main__":
    print("\n".join(table()))

"""Which methods commute under `|`: measured for every pair, predicted by rules, shown in docs/composition.md."""

from __future__ import annotations

import re
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from guided_runs import GRIDS, step_of
from torch import Tensor

from hguide.guidance import CFG, SSG, VPG, Guidance, SoftCFG, registry
from hguide.schedules import Constant
from hguide.streams import COND, Stream

PAGE = Path(__file__).parents[2] / "docs" / "composition.md"
# CFG-Zero* divides by |u|^2 + 1e-8, so that what is equal in exact arithmetic differs by about as much.
SAME, CLEARLY = 1e-6, 1e-3
NAMES = registry.names()

# What a contrast changes about a stream; methods that mix tokens or remember stand apart.
CHANGES = {
    "cfg": {"condition"},
    "fdg": {"condition"},
    "vpg": {"prefix"},
    "autoguidance": {"model"},
    "pag": {"forward"},
    "slg": {"forward"},
    "seg": {"forward"},
    "softcfg": {"condition", "forward"},
}
SAME_CONTRAST = {"cfg": "null", "fdg": "null"}
REMEMBER = {"ssg", "family"}
ALWAYS_EQUALLY_STRONG = {"autoguidance", "pag", "slg", "seg"}


def predicted(a: str, b: str) -> bool:
    """Whether two methods with their defaults commute, by the rules of the page."""
    if {a, b} == {"cfg", "cfg_zero"}:
        return True
    if not {a, b} <= set(CHANGES) | REMEMBER:
        return False
    if a in REMEMBER and b in REMEMBER:
        return True
    if a in REMEMBER or b in REMEMBER:
        return bool({a, b} & ALWAYS_EQUALLY_STRONG)
    return not CHANGES[a] & CHANGES[b] or SAME_CONTRAST.get(a, a) == SAME_CONTRAST.get(b, b)


def logits_of(k: int, stream: Stream) -> Tensor:
    draw = torch.Generator().manual_seed(k + 1000 * sum(str(stream).encode()))
    return torch.randn(2, *GRIDS[k], 5, generator=draw, dtype=torch.float64)


def run(guidance: Guidance) -> list[Tensor]:
    memory: Any = {}
    results = []
    for k in range(len(GRIDS)):
        given = {stream: logits_of(k, stream) for stream in guidance.asks(COND, step_of(k))}
        logits, memory = guidance.apply(given, step_of(k), memory)
        results.append(logits - logits.mean(-1, keepdim=True))
    return results


def difference(a: Guidance, b: Guidance) -> float:
    """Largest difference of `a | b` and `b | a` over four steps, in the gauge of mean 0."""
    return max(float((x - y).abs().max()) for x, y in zip(run(a | b), run(b | a), strict=True))


@cache
def measured(a: str, b: str) -> float:
    return difference(registry.get(a)(), registry.get(b)())


def table() -> str:
    """The lower triangle: `=` where the order does not matter, else the largest difference."""
    lines = ["| | " + " | ".join(f"`{name}`" for name in NAMES[:-1]) + " |", "|---" * len(NAMES) + "|"]
    for row, name in enumerate(NAMES[1:], 1):
        cells = [entry(measured(other, name)) for other in NAMES[:row]]
        lines.append(f"| `{name}` | " + " | ".join([*cells, *[""] * (len(NAMES) - 1 - row)]) + " |")
    return "\n".join(lines)


def entry(apart: float) -> str:
    return "=" if apart < SAME else f"{apart:.2g}"


@pytest.mark.parametrize(("a", "b"), [*combinations(NAMES, 2)], ids=lambda name: name)
def test_the_rules_predict_every_pair(a: str, b: str) -> None:
    apart = measured(a, b)
    assert apart < SAME or apart > CLEARLY
    assert (apart < SAME) is predicted(a, b)


def test_the_page_shows_what_is_measured() -> None:
    shown = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [re.split(r"\s*\|\s*", line) for line in shown]
    wanted = [re.split(r"\s*\|\s*", line) for line in table().splitlines()]
    hint = f"replace the table in docs/composition.md by:\n{table()}"
    assert [line[1] for line in cells] == [line[1] for line in wanted], hint
    for line, right in zip(cells, wanted, strict=True):
        for cell, value in zip(line, right, strict=True):
            number = re.fullmatch(r"[\d.e+-]*\d[\d.e+-]*", value) is not None
            assert (float(cell) == pytest.approx(float(value), rel=0.1)) if number else cell == value, hint


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (CFG(Constant(1.5)), SSG(0.7)),
        (CFG(w=3.0), SSG(0.7)),
        (SoftCFG(1.5, schedule=Constant()), SSG(0.7)),
        (CFG(1.0), CFG(2.5)),
        (SSG(0.3), SSG(0.9)),
    ],
    ids=str,
)
def test_pairs_that_commute_with_other_options(a: Guidance, b: Guidance) -> None:
    assert difference(a, b) < SAME


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (VPG(schedule=Constant()), SSG(0.7)),  # nothing to corrupt at the first step
        (SSG(0.3, schedule=Constant()), SSG(0.9)),  # another course over the steps
        (CFG(w=3.0, stop=0.5), SSG(0.7)),
    ],
    ids=str,
)
def test_pairs_that_do_not(a: Guidance, b: Guidance) -> None:
    assert difference(a, b) > CLEARLY


if __name__ == "__main__":
    print(table())

"""The predicted memory of families without bundled weights, against what a run allocates."""

from __future__ import annotations

import pytest
import torch
from tiny_hart import text as hart_text
from tiny_hart import tiny_hart
from tiny_infinity import SQUARE, ScaleSchedule, tiny_infinity
from tiny_infinity import text as infinity_text

import hguide
from hguide.experiments.bench.memory import peak_bytes

GUIDANCE = "cfg(1.5) | ssg(1.0)"
LARGER = ScaleSchedule((*SQUARE.grids, (8, 8)))


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize(
    ("make", "prompt"),
    [
        (lambda: tiny_hart(depth=3, width=64, hidden=192), hart_text(1)),
        (lambda: tiny_infinity(schedule=LARGER), infinity_text(12)),
    ],
    ids=["hart", "infinity"],
)
def test_the_predicted_peak_is_that_of_the_run(make, prompt, batch):
    generator = make()
    predicted = generator.run_bytes(batch, 2).peak

    def job():
        hguide.generate(generator, [prompt] * batch, GUIDANCE, seeds=range(batch), negative=prompt)

    measured = peak_bytes(job, torch.device("cpu"))
    assert 0.8 * measured <= predicted <= 1.25 * measured

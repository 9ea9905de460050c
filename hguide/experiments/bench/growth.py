"""How the update of SSG grows with batch, vocabulary and grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from hguide.experiments.bench.report import BenchRow
from hguide.experiments.bench.shapes import Shapes
from hguide.experiments.bench.slopes import slope, slope_row
from hguide.experiments.bench.update import Pair, measure_pair, workspace
from hguide.grids import Grid

__all__ = ["BATCHES", "VOCABULARIES", "growth_rows"]

BATCHES, VOCABULARIES = (1, 2, 4, 8), (1024, 2048, 4096, 8192)
_SOURCE, _TARGET, _CHANNELS = (13, 13), (16, 16), 4096
_BUDGET_S = 0.4

Sizes = tuple[Grid, Grid, int, int]


def growth_rows(
    device: torch.device,
    dtype: torch.dtype,
    *,
    repeat: int,
    sides: Sequence[int] = (12, 16, 24, 32),
    progress: Callable[[str], object] = lambda line: None,
) -> list[BenchRow]:
    """Slopes of the update's time; the predicted ones are those of the floors at the same sizes.

    Args:
        device: where the update runs.
        dtype: of the logits.
        repeat: samples of each time.
        sides: of the finer of two grids; the coarser one has three quarters of it.
        progress: receives a line before each part.
    """
    last = (_SOURCE, _TARGET)
    grids = [((side * 3 // 4,) * 2, (side,) * 2) for side in sides]
    series: dict[str, tuple[list[float], list[Sizes]]] = {
        "batch": ([float(b) for b in BATCHES], [(*last, _CHANNELS, b) for b in BATCHES]),
        "vocabulary": ([float(v) for v in VOCABULARIES], [(*last, v, 1) for v in VOCABULARIES]),
        "positions": ([float(side**2) for side in sides], [(*pair, _CHANNELS, 1) for pair in grids]),
    }
    rows = []
    for words, (sizes, shapes) in series.items():
        progress(f"update, growing {words}")
        pairs = [_pair(*shape, device, dtype, repeat) for shape in shapes]
        forms = sorted({pair.form for pair in pairs})
        rows.append(
            slope_row(
                f"update over {words} ({' and '.join(forms)})",
                sizes,
                [pair.update.ms for pair in pairs],
                predicted=slope(sizes, [pair.floor_ms for pair in pairs]) if words == "positions" else 1.0,
                samples=min(pair.update.samples for pair in pairs),
            )
        )
    return rows


def _pair(
    source: Grid, target: Grid, channels: int, batch: int, device: torch.device, dtype: torch.dtype, repeat: int
) -> Pair:
    shapes = Shapes("growth", (source[0], target[0]), channels, (batch,))
    buffers = workspace(shapes, batch, device, dtype)
    return measure_pair(source, target, channels, batch, buffers, repeat=repeat, budget_s=_BUDGET_S, referenced=False)

"""How a cost grows: the slope of its logarithm over that of a size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hguide.errors import ConfigError
from hguide.experiments.bench.report import BenchRow

__all__ = ["slope", "slope_row"]

# A measured slope this far above the predicted one still counts as that growth: caches end somewhere in between.
_SLACK = 0.15


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Least-squares slope of log(cost) over log(size): 1 where the cost is proportional to the size.

    Raises:
        ConfigError: fewer than two sizes, or one that is not positive.

    >>> slope([1, 2, 4], [3, 12, 48])
    2.0
    """
    if len(sizes) != len(costs) or len(set(sizes)) < 2 or min(*sizes, *costs) <= 0:
        raise ConfigError(f"a slope needs two sizes and positive costs, got {list(sizes)} and {list(costs)}.")
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    below = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / below


def slope_row(
    what: str, sizes: Sequence[float], times: Sequence[float], *, predicted: float = 1.0, samples: int
) -> BenchRow:
    """The slope over some sizes, held against the predicted one.

    Args:
        what: in words, with what grows.
        sizes: from small to large.
        times: in milliseconds, one per size.
        predicted: slope of bytes or operations; a smaller one is no fault, since small sizes have fixed costs.
        samples: behind each time.
    """
    shown = ", ".join(f"{size:g}" for size in (sizes if len(sizes) < 5 else (sizes[0], sizes[-1])))
    return BenchRow(
        what=what,
        quantity="log-log slope",
        ratio=slope(sizes, times),
        target=round(predicted + _SLACK, 2),
        ms=times[-1],
        samples=samples,
        note=f"predicted {predicted:.2f}; {'at' if len(sizes) < 5 else 'from, to'} {shown}",
        details={"sizes": list(sizes), "ms": list(times), "predicted": predicted},
    )

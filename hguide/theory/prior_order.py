"""Does leakage explain the order of the priors in SSG's ablation (arXiv 2602.05534, table 5)?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import Literal

from hguide.guidance import parse_prior
from hguide.priors import SeparablePrior
from hguide.theory.leakage import schedule_leakage
from hguide.theory.published_grids import SCHEDULES
from hguide.theory.verdict import Verdict, approximate, false

__all__ = [
    "TABLE_5",
    "Order",
    "amplitude_order_verdict",
    "linear_part_verdict",
    "literal_order_verdict",
    "nearest_part_verdict",
    "order_of",
    "part_share",
    "predicted_order",
    "table_5_priors",
]

TABLE_5: Mapping[str, float] = MappingProxyType({"nearest": 4.02, "linear": 3.79, "zero high": 3.34, "DSE": 3.27})
"""FID of VAR-d16 with each prior (lower is better); without SSG it is 3.42. The last two have the decaying schedule."""

Gain = Literal["literal", "amplitude"]
Part = Literal["attenuation", "crosstalk", "spurious", "total"]


@dataclass(frozen=True)
class Order:
    """The priors of table 5 by one number.

    Attributes:
        values: prior -> the number, such as the mean leakage over the steps of a schedule.
        agree: pairs of priors in the table's order.
        against: pairs in the other order; ties count in neither.
    """

    values: Mapping[str, float]
    agree: tuple[tuple[str, str], ...]
    against: tuple[tuple[str, str], ...]


def predicted_order(
    part: Part = "total", gain: Gain = "literal", flat: bool = False, schedule: str = "VAR-256"
) -> Order:
    """Table 5's priors ordered by leakage, pair by pair against their FID.

    Args:
        part: which leakage, see `hguide.theory.leakage.Leakage`.
        gain: of the two DSE rows; the paper's algorithm as printed is "literal".
        flat: all frequencies alike; otherwise the spectrum of photographs.
        schedule: the table's model is VAR-256.
    """
    values = {name: _mean_leakage(text, part, flat, schedule) for name, text in table_5_priors(gain).items()}
    return order_of(values)


def table_5_priors(gain: Gain) -> dict[str, str]:
    """Name of each row of table 5 -> text form of its prior, the two of DSE with this gain."""
    return {
        "nearest": "nearest",
        "linear": "bilinear",
        "zero high": f"dse(high=zero, gain={gain})",
        "DSE": f"dse(gain={gain})",
    }


def order_of(values: Mapping[str, float]) -> Order:
    """The rows of table 5 by a number that a better prior has less of, pair by pair against their FID."""
    agree: list[tuple[str, str]] = []
    against: list[tuple[str, str]] = []
    for worse, better in combinations(TABLE_5, 2):
        margin = values[worse] - values[better]
        if abs(margin) > 1e-12:
            (agree if margin > 0 else against).append((worse, better))
    return Order(values, tuple(agree), tuple(against))


def _mean_leakage(text: str, part: Part, flat: bool, schedule: str) -> float:
    prior = parse_prior(text)
    assert isinstance(prior, SeparablePrior)
    rows = schedule_leakage(prior, SCHEDULES[schedule], flat=flat)
    return sum(getattr(row, part) for row in rows) / len(rows)


def part_share(text: str, part: Part, flat: bool = False, schedule: str = "VAR-256") -> float:
    """The share of one kind in the total leakage of a prior, both as means over the steps of a schedule.

    Args:
        text: text form of a prior.
        part: which leakage.
        flat: as in `predicted_order`.
        schedule: as in `predicted_order`.
    """
    return _mean_leakage(text, part, flat, schedule) / _mean_leakage(text, "total", flat, schedule)


def nearest_part_verdict() -> Verdict:
    """Is the fault of "nearest" its spurious high band, more than all else?"""
    missing = 0.5 - part_share("nearest", "spurious")
    return false(max(0.0, missing), "spurious share short of a half; the rest is mostly crosstalk in the low band")


def linear_part_verdict() -> Verdict:
    """Is the fault of "linear" attenuation?"""
    return approximate(1.0 - part_share("bilinear", "attenuation"), "share of its leakage that is not attenuation")


def literal_order_verdict() -> Verdict:
    """Does the total leakage order table 5 where DSE copies literally, as printed?"""
    return _verdict("literal")


def amplitude_order_verdict() -> Verdict:
    """Does the total leakage order table 5 where DSE keeps amplitudes?"""
    return _verdict("amplitude")


def _verdict(gain: Gain) -> Verdict:
    against = predicted_order(gain=gain).against
    pairs = ", ".join(f"{worse}/{better}" for worse, better in against)
    return false(len(against), f"of 6 pairs the other way round ({pairs})", tolerance=0.0)

"""Numbers as text, and which of a column are best and second."""

from __future__ import annotations

from collections.abc import Sequence

from hguide.experiments.report.table import BEST, SECOND

__all__ = ["interval_text", "number_text", "ranks"]


def number_text(value: float, digits: int, *, sign: bool = False) -> str:
    """A number with a fixed number of digits after the point; zero has no sign.

    >>> number_text(-0.0004, 3), number_text(0.25, 2, sign=True)
    ('0.000', '+0.25')
    """
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text if float(text) else f"{0.0:.{digits}f}"


def interval_text(low: float, high: float, digits: int, *, sign: bool = False) -> str:
    """Both ends in brackets."""
    return f"[{number_text(low, digits, sign=sign)}, {number_text(high, digits, sign=sign)}]"


def ranks(texts: Sequence[str | None], higher_is_better: bool | None) -> list[str]:
    """The mark of each number of a column: "best", "second" or nothing.

    Numbers that are printed alike are marked alike. Nothing is marked without a direction, or where all numbers that
    take part are equal.

    Args:
        texts: numbers as printed; None for those that take no part.
        higher_is_better: direction of the column.
    """
    values = [None if text is None else float(text) for text in texts]
    order = sorted({value for value in values if value is not None}, reverse=bool(higher_is_better))
    if higher_is_better is None or len(order) < 2:
        return [""] * len(values)
    marks = {order[0]: BEST, order[1]: SECOND}
    return ["" if value is None else marks.get(value, "") for value in values]

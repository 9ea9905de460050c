"""One checkable statement."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from hguide.theory.verdict import Verdict

__all__ = ["Claim"]


@dataclass(frozen=True)
class Claim:
    """One row of the table of claims.

    Attributes:
        equation: where the statement stands.
        statement: what it says.
        function: "module:function" below `hguide.theory` that computes it.
        test: "file::test" below `tests/theory`.
        check: "module:function" below `hguide.theory` that takes nothing and returns the `Verdict`.
    """

    equation: str
    statement: str
    function: str
    test: str
    check: str

    def verdict(self) -> Verdict:
        """Run the check."""
        module, function = self.check.split(":")
        return getattr(importlib.import_module(f"hguide.theory.{module}"), function)()

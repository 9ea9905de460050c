"""The measured hierarchy as a file and as text: what was asked, of which model, and what came out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hguide.generator import ScaleGenerator
from hguide.theory.token_redundancy import Redundancy, measure

__all__ = ["Hierarchy", "measured_hierarchy"]


@dataclass(frozen=True)
class Hierarchy:
    """All estimates of a run.

    Attributes:
        rows: estimates.
        facts: model hash, guidances, pictures, versions, device.
    """

    rows: tuple[Redundancy, ...]
    facts: dict[str, Any]

    def to_json(self) -> str:
        """Facts and rows."""
        rows = [{**asdict(row), "excess": row.excess} for row in self.rows]
        return json.dumps({"schema": "hguide.token-redundancy/1", **self.facts, "rows": rows}, indent=1) + "\n"

    def text(self) -> str:
        """One line per estimate, and what follows for the redundancy."""
        lines = [f"mutual information of a step's tokens with a band of the final latent, nats; {self._what()}"]
        lines.append(
            f"{'step':<8}{'band':<6}{'estimator':<11}{'estimate [95 %]':<26}{'shuffled':<16}{'change':<26}guidance"
        )
        for row in self.rows:
            change = str(row.change) + ("*" if row.change.excludes_zero else "") if row.change is not None else "-"
            grid = f"{row.grid[0]}x{row.grid[1]}"
            control = f"{row.control:.3f}+-{row.control_spread:.3f}"
            lines.append(
                f"{grid:<8}{row.band:<6}{row.estimator:<11}{row.nats!s:<26}{control:<16}{change:<26}{row.guidance}"
            )
        return "\n".join([*lines, *self._conclusions()])

    def _what(self) -> str:
        return f"{self.facts['images']} pictures each of {self.facts['model']}; * excludes 0"

    def _conclusions(self) -> list[str]:
        """How many steps have less, or more, about the low band than under the first guidance."""
        found = []
        for guidance in self.facts["guidances"][1:]:
            for estimator in dict.fromkeys(row.estimator for row in self.rows):
                changes = [
                    row.change
                    for row in self.rows
                    if (row.guidance, row.estimator, row.band) == (guidance, estimator, "low")
                    and row.change is not None
                ]
                lower, higher = (sum(c.excludes_zero and c.estimate * sign > 0 for c in changes) for sign in (-1, 1))
                found.append(
                    f"redundancy under {guidance} against {self.facts['guidances'][0]}, {estimator}: lower at {lower}, "
                    f"higher at {higher}, not told apart at {len(changes) - lower - higher} of {len(changes)} steps"
                )
        return found


def measured_hierarchy(
    generator: ScaleGenerator,
    model: str,
    guidances: Sequence[str],
    images: int,
    *,
    batch_size: int = 32,
    progress: Callable[[str], None] = lambda line: None,
) -> Hierarchy:
    """Measure, and note what the numbers come from.

    Args:
        generator: see `hguide.theory.token_redundancy.measure`.
        model: its name for the reader.
        guidances: text forms; changes are against the first.
        images: pictures per guidance.
        batch_size: pictures at once.
        progress: receives a line now and then.

    Raises:
        ConfigError: as `measure`.
    """
    from hguide.guidance import parse
    from hguide.provenance import device_facts, model_hash, versions

    texts = [str(parse(text)) for text in guidances]
    rows = measure(generator, texts, images, batch_size=batch_size, progress=progress)
    facts = {
        "model": model,
        "model_hash": model_hash(generator),
        "guidances": texts,
        "images": images,
        "seeds": f"0-{images - 1}",
        "classes": "seed s has class s mod the number of classes",
        "versions": versions(),
        "device": device_facts(generator.device),
    }
    return Hierarchy(tuple(rows), facts)

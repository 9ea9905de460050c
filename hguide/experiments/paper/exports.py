"""What the tools of others need, for measures that none here stands in for: the pictures and their prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from hguide.experiments.ablation.results import Results
from hguide.experiments.ablation.store import Store
from hguide.images import write_bytes, write_png

__all__ = ["export_rows", "file_name"]


def file_name(label: str) -> str:
    """A row's label as the name of a file.

    >>> file_name("CFG + SSG")
    'CFG-SSG'
    """
    return re.sub(r"[^\w.-]+", "-", label).strip("-")


def export_rows(results: Results, store: Store, folder: Path, note: Callable[[str], None]) -> list[Path]:
    """FOLDER/ROW/SEED.png and FOLDER/ROW/prompts.jsonl, one line per picture: file_name, prompt, seed.

    CLIPScore, ImageReward and HPS take a picture and its prompt; GenEval also wants the metadata of its own prompts, by
    which the lines are to be joined.

    Args:
        results: whose finished cells are written.
        store: has the pictures.
        folder: of the exports.
        note: takes lines for the user.

    Returns:
        The folders.
    """
    names, written = results.classes["names"], []
    for cell in results.cells:
        if cell.status != "done":
            continue
        place = folder / file_name(cell.label)
        place.mkdir(parents=True, exist_ok=True)
        blocks = [store.read_block(cell.hash, first) for first in store.firsts(cell.hash)]
        wanted, lines = set(results.seeds["listed"]), []
        for block in filter(None, blocks):
            for seed, image in zip(block.seeds, block.images, strict=True):
                if seed in wanted:
                    write_png(place / f"{seed:06d}.png", image)
                    line = {"file_name": f"{seed:06d}.png", "prompt": names[seed % len(names)], "seed": seed}
                    lines.append(json.dumps(line, ensure_ascii=False))
        write_bytes(place / "prompts.jsonl", ("\n".join(lines) + "\n").encode())
        note(str(place))
        written.append(place)
    return written

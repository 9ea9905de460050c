"""`hguide paper`: a preset as an ablation, or as the analysis that it is, and the table of reported and measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hguide.errors import ConfigError, near_matches
from hguide.experiments.paper.comparison import PaperTable, compare
from hguide.experiments.paper.exports import export_rows, file_name
from hguide.experiments.paper.preset import Preset, read_preset
from hguide.images import write_bytes
from hguide.lists import seeds
from hguide.load import BUNDLED, family_of

if TYPE_CHECKING:
    import numpy as np

__all__ = ["PaperOptions", "ablation_config", "run_preset"]


SETTINGS = ("auto", "bundled", "published")


@dataclass(frozen=True)
class PaperOptions:
    """Of a run.

    Attributes:
        preset: one of `PRESETS`.
        model: bundled name, file, folder or hub id.
        out: folder of images, features and tables.
        seeds: of each row, as in an ablation.
        parameters: values in place of the preset's, for instance {"beta": 0.5}.
        settings: "bundled" for small models, "published" for the paper's checkpoints, "auto" for what the name tells.
        prompts: for text models, in place of their classes: a text, or a file with one per line.
        load: options of `hguide.load`, for instance a text encoder.
        reference: "bundled", a file of `hguide train reference`, or an `.npz` of real pictures.
        repeat_features: SqueezeNet weights for a second network; None leaves it out.
        data: folder of scenes, for completion.
        npz: also write the images of each row as one `.npz`, for the evaluators of the papers.
        replicates: of the bootstrap.
        block: seeds sampled together.
        device: that samples.
        devices: processes per machine.
        num_nodes: machines.
        command: as typed.
    """

    preset: str
    model: str
    out: Path
    seeds: str = "0-511"
    parameters: Mapping[str, float] = field(default_factory=dict)
    settings: str = "auto"
    prompts: str | None = None
    load: Mapping[str, Any] = field(default_factory=dict)
    reference: str = "bundled"
    repeat_features: str | None = None
    data: Path | None = None
    npz: bool = False
    replicates: int = 1000
    block: int = 32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    devices: int = 1
    num_nodes: int = 1
    command: str = ""

    @property
    def published(self) -> bool:
        """Whether the paper's own settings apply; unless they are given, for all but the bundled models."""
        return self.model not in BUNDLED if self.settings == "auto" else self.settings == "published"


def run_preset(options: PaperOptions, note: Callable[[str], None]) -> Any:
    """Run a preset and write paper.md and paper.json into its folder.

    Args:
        options: of the run.
        note: takes lines for the user.

    Returns:
        The table, with `text()` and `ok`; None on all processes but the first.

    Raises:
        ConfigError: no such preset, or options that do not fit it.
    """
    if options.settings not in SETTINGS:
        raise ConfigError(f"unknown settings {options.settings!r}: {near_matches(options.settings, SETTINGS)}")
    seeds(options.seeds)  # Wrong ones are told before anything is written.
    family = family_of(options.model)
    preset = read_preset(options.preset, published=options.published, parameters=options.parameters, family=family)
    if preset.kind != "ablation":
        from hguide.experiments.paper.analysis import run_analysis

        return run_analysis(preset, options, note)
    if options.published and options.reference == "bundled":
        raise ConfigError(
            f"{options.model} is no bundled model, and the bundled reference is of land-use pictures: give --reference "
            "PICTURES.npz, real pictures of the data that the model was trained on (arr_0, NHWC bytes)."
        )
    table = _ablate(preset, options, note)
    if table is not None:
        write_bytes(options.out / "paper.md", table.text().encode())
        write_bytes(options.out / "paper.json", (json.dumps(table.json(), indent=1) + "\n").encode())
    return table


def ablation_config(preset: Preset, options: PaperOptions) -> dict[str, Any]:
    """The configuration of `hguide ablate` that a preset stands for."""
    cells = []
    for row in preset.rows:
        cell: dict[str, Any] = {"label": row.label, "guidance": row.guidance, "temperature": row.temperature}
        if row.strength is not None:
            cell["strength"] = row.strength
        cells.append(cell)
    config: dict[str, Any] = {
        "name": preset.name,
        "title": preset.title,
        "description": f"{preset.source}. {preset.note}".strip(),
        "model": options.model,
        "sampler": dict(preset.sampler),
        "cells": cells,
        "seeds": options.seeds,
        "baseline": preset.baseline,
        "replicates": options.replicates,
        "block": options.block,
        "reference": options.reference,
    }
    if options.prompts is not None:
        config["prompts"] = options.prompts
    if options.load:
        config["load"] = dict(options.load)
    if options.repeat_features is not None:
        config["repeat_features"] = options.repeat_features
    return config


def _ablate(preset: Preset, options: PaperOptions, note: Callable[[str], None]) -> PaperTable | None:
    import yaml

    from hguide.experiments.ablation.ablate import Options, ablate
    from hguide.experiments.ablation.store import Store
    from hguide.experiments.report.write import write_report

    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "config.yaml"
    write_bytes(path, yaml.safe_dump(ablation_config(preset, options), sort_keys=False, width=120).encode())
    settings = Options(
        path, options.out, None, options.device, options.devices, options.num_nodes, command=options.command
    )
    results = ablate(settings, note)
    if results is None:
        return None
    if preset.reported.get("elsewhere"):
        export_rows(results, Store(options.out), options.out / "exports", note)
    if options.npz:
        _write_archives(preset, results, options, note)
    write_report(results, Store(options.out), options.out)
    return compare(preset, results, options.model)


def _images(store: Any, cell: str, wanted: Sequence[int]) -> np.ndarray:
    """The images of a cell in the order of the seeds, each block read once."""
    import numpy as np

    blocks = [store.read_block(cell, first) for first in store.firsts(cell)]
    found = {seed: image for block in blocks for seed, image in zip(block.seeds, block.images, strict=True)}
    return np.stack([found[seed] for seed in wanted])


def _write_archives(preset: Preset, results: Any, options: PaperOptions, note: Callable[[str], None]) -> None:
    """`arr_0` (n, H, W, 3) bytes of each row."""
    import io

    import numpy as np

    from hguide.experiments.ablation.store import Store

    store = Store(options.out)
    for cell in results.cells:
        if cell.status != "done":
            continue
        buffer = io.BytesIO()
        np.savez(buffer, arr_0=_images(store, cell.hash, seeds(options.seeds)))
        name = file_name(cell.label)
        write_bytes(options.out / f"{name}.npz", buffer.getvalue())
        note(f"{options.out / f'{name}.npz'}")

"""Made-up results: eight cells of every status, a sweep, and a store of drawn images."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from hguide.errors import ConfigError
from hguide.experiments.ablation.results import (
    CellResult,
    Comparison,
    Estimate,
    MeasureInfo,
    Results,
    Spectrum,
)

NETWORK, REPEAT = "landuse-features", "squeezenet"
MEASURES = (
    MeasureInfo("kd", "KD", False, 3, "Unbiased kernel distance.", NETWORK),
    MeasureInfo("fd", "FD", False, 2, "Fréchet distance.", NETWORK, "centred"),
    MeasureInfo("sfd", "sFD", False, 2, "Spatial Fréchet distance.", NETWORK, "centred"),
    MeasureInfo("precision", "precision", True, 3, "Share of images within the real manifold.", NETWORK),
    MeasureInfo("recall", "recall", True, 3, "Share of real images within the generated manifold.", NETWORK),
    MeasureInfo("score", "score", True, 2, "Classifier score.", NETWORK),
    MeasureInfo("accuracy", "accuracy", True, 3, "Share of images named as asked.", NETWORK),
    MeasureInfo("spectrum_distance", "spectrum", False, 3, "Mean |log ratio| of radial power.", None),
    MeasureInfo("high_band", "high band", None, 2, "Power above half of Nyquist over that of real images.", None),
    MeasureInfo("kd_squeezenet", "KD", False, 3, "Kernel distance, independent network.", REPEAT),
    MeasureInfo("fd_squeezenet", "FD", False, 1, "Fréchet distance, independent network.", REPEAT, "centred"),
    MeasureInfo("precision_squeezenet", "precision", True, 3, "Precision, independent network.", REPEAT),
    MeasureInfo("recall_squeezenet", "recall", True, 3, "Recall, independent network.", REPEAT),
)
CLASSES = ["agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral", "denseresidential"]
CLASSES += ["forest", "freeway", "golfcourse", "harbor", "intersection", "mediumresidential", "mobilehomepark"]
CLASSES += ["overpass", "parkinglot", "river", "runway", "sparseresidential", "storagetanks", "tenniscourt"]
SIZE = {"kd": 0.05, "fd": 12.0, "sfd": 30.0, "precision": 0.7, "recall": 0.5, "score": 9.0, "accuracy": 0.75}
SIZE |= {"spectrum_distance": 0.2, "high_band": 0.9, "kd_squeezenet": 0.08, "fd_squeezenet": 60.0}
SIZE |= {"precision_squeezenet": 0.66, "recall_squeezenet": 0.45}
FLOOR = {"kd": 0.002, "fd": 3.1, "sfd": 11.0, "precision": 0.86, "recall": 0.85, "accuracy": 0.91, "score": 14.2}


def name_of(label: str) -> str:
    return hashlib.sha256(label.encode()).hexdigest()[:12]


def estimates(quality: float, measures=MEASURES) -> dict[str, Estimate]:
    """All measures of a cell; quality 1 is the baseline's, more is better in all but recall."""
    found = {}
    for each in measures:
        middle = SIZE[each.key] * (quality if each.higher_is_better and "recall" not in each.key else 1 / quality)
        half = 0.06 * SIZE[each.key]
        found[each.key] = Estimate(middle, middle - half, middle + 1.2 * half)
    return found


def cell(label: str, quality: float, status: str = "done", **changes) -> CellResult:
    axes = {"model": "landuse-var", "guidance": label, "prior": None, "schedule": None, "strength": None}
    axes |= {"sampler": "top_k=200, top_p=0.96", "temperature": 1.0, **changes.pop("axes", {})}
    frequency = tuple(np.arange(1, 33) / 64)
    ratio = tuple(float(np.exp((quality - 1.12) * 3 * f + 0.02 * np.sin(40 * f))) for f in frequency)
    done = status == "done"
    return CellResult(
        hash=name_of(label),
        label=label,
        axes=axes,
        varied=changes.pop("varied", ("guidance", "prior")),
        guidance=changes.pop("guidance", label),
        model_hash="9f" * 32,
        status=status,
        error=changes.pop("error", None),
        count={"done": 512, "partial": 320, "failed": 96, "missing": 0}[status],
        measures=estimates(quality) if status in ("done", "partial") else {},
        seconds_per_image=None if status == "missing" else 0.05 + 0.02 * len(label) / 40,
        peak_memory_mb=612.0 + len(label) if done else None,
        streams=1 + ("cfg" in label),
        network_calls=7,
        spectrum=Spectrum(frequency, ratio) if done else None,
        **changes,
    )


def compared(results: Results) -> Results:
    """With the differences from the first cell."""
    first, found = results.cells[0], []
    for each in results.cells[1:]:
        for measure in results.measures if each.status == "done" else ():
            change = each.measures[measure.key].estimate - first.measures[measure.key].estimate
            half = 0.05 * SIZE[measure.key]
            apart = abs(change) > half
            found.append(Comparison(each.hash, first.hash, measure.key, change, change - half, change + half, apart))
    return replace(results, comparisons=tuple(found), baseline=first.hash)


def eight() -> Results:
    """Eight cells as of Table 5: one partial, one failed, one not run."""
    cells = (
        cell("cfg(3.0)", 1.0),
        cell("cfg(3.0) | ssg(0.5, prior=nearest)", 0.97, axes={"prior": "nearest"}),
        cell("cfg(3.0) | ssg(0.5, prior=bilinear)", 1.04, axes={"prior": "bilinear"}),
        cell("cfg(3.0) | ssg(0.5, prior=dse(gain=amplitude), schedule=linear)", 1.12, axes={"prior": "dse"}),
        cell("cfg(3.0) | ssg(0.5, prior=dse(transform=haar))", 1.121, axes={"prior": "dse(transform=haar)"}),
        cell("cfg(3.0) | ssg(0.5, prior=lanczos)", 1.06, "partial", axes={"prior": "lanczos"}),
        cell("none", 0.72, "failed", error="RuntimeError: probabilities contain NaN at step 4 <logits & 100 %>"),
        cell("cfg(3.0) | ssg(2.0, prior=dse)", 1.0, "missing", axes={"prior": "dse"}),
    )
    return compared(results_of(cells))


def sweep() -> Results:
    """Two priors by five strengths, less one, beside a baseline without strength."""
    cells = [cell("cfg(3.0)", 1.0, varied=("prior", "schedule", "strength"))]
    for prior, schedule, best in (("dse", "linear", 1.14), ("nearest", "linear", 1.05), ("dse", "cosine", 1.1)):
        for strength in (0.25, 0.5, 1.0, 1.5, 2.0):
            cells.append(
                cell(
                    f"cfg(3.0) | ssg({strength}, prior={prior}, schedule={schedule})",
                    best - 0.12 * (strength - 0.8) ** 2,
                    "failed" if (prior, strength) == ("nearest", 2.0) else "done",
                    axes={
                        "guidance": "cfg(3.0) | ssg",
                        "prior": prior,
                        "schedule": schedule,
                        "strength": strength,
                    },
                    varied=("prior", "schedule", "strength"),
                    error="stopped" if (prior, strength) == ("nearest", 2.0) else None,
                )
            )
    return compared(results_of(tuple(cells)))


def many(priors: int, strengths: int) -> Results:
    """Priors by strengths beside a baseline, with labels as long as real ones; one strength is no sweep."""
    varied = ("prior", "strength") if strengths > 1 else ("prior",)
    cells = [cell("cfg(3.0)", 1.0, varied=varied)]
    for place in range(priors):
        for strength in (0.25 * (1 + step) for step in range(strengths)):
            prior = f"dse(transform=db{place}, gain=amplitude)"
            axes = {"guidance": "cfg(3.0) | ssg", "prior": prior, "strength": strength if strengths > 1 else None}
            label = f"cfg(3.0) | ssg({strength}, prior={prior}, schedule=linear)"
            cells.append(cell(label, 1 + 0.01 * place - 0.1 * (strength - 1) ** 2, axes=axes, varied=varied))
    return compared(results_of(tuple(cells)))


def results_of(cells: tuple[CellResult, ...], **changes) -> Results:
    facts = {
        "name": "table5",
        "title": "Priors of SSG on landuse-var",
        "description": "The rows of Table 5 of arXiv 2602.05534 on the bundled model.",
        "config": {
            "name": "table5",
            "model": "landuse-var",
            "guidance": ["cfg(3.0)", "cfg(3.0) | ssg(0.5)"],
            "prior": ["nearest", "bilinear", "dse(gain=amplitude)"],
            "seeds": "0-511",
        },
        "config_hash": "ab" * 32,
        "provenance": {
            "command": "hguide ablate table5.yaml --out table5",
            "versions": {"hguide": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
            "device": {"type": "cpu", "name": "x86_64", "threads": 2},
            "reference": {"name": "landuse", "hash": "cd" * 32, "crops": 512, "scenes": 256, "split": "train"},
            "features": {"name": NETWORK, "hash": "ef" * 32},
            "repeat_features": {"name": REPEAT, "hash": "01" * 32},
            "processes": 2,
            "threads": 1,
            "started": "2026-11-24T01:02:03Z",
            "finished": "2026-11-24T01:22:03Z",
        },
        "seeds": {"first": 0, "count": 512, "text": "0-511"},
        "classes": {"count": 21, "names": CLASSES, "rule": "seed s has class s mod 21"},
        "measures": MEASURES,
        "cells": cells,
        "floor": {key: Estimate(value, 0.93 * value, 1.08 * value) for key, value in FLOOR.items()},
    }
    return Results(**{**facts, **changes})


class DrawnImages:
    """Images that tell cell and seed apart; a cell that was never run, and seeds after `count`, have none."""

    def __init__(self, results: Results, side: int = 64) -> None:
        self.cells = {each.hash: each for each in results.cells}
        self.side = side

    def image(self, cell_hash: str, seed: int) -> np.ndarray:
        if seed >= self.cells[cell_hash].count:
            raise ConfigError(f"no image of seed {seed}")
        place = [*self.cells].index(cell_hash)
        y, x = np.mgrid[: self.side, : self.side] / self.side
        waves = np.stack([np.sin((seed + 2) * (x + 0.1 * k * place) + k * y * (3 + place)) for k in range(3)], -1)
        noise = np.random.default_rng(seed).normal(0, 0.2 * place / 8, waves.shape)
        return np.clip(127 + 90 * waves + 60 * noise, 0, 255).astype(np.uint8)

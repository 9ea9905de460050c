"""Stored blocks, and results.json."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from hguide.errors import ConfigError
from hguide.experiments.ablation.plan import block_seeds
from hguide.experiments.ablation.results import CellResult, Comparison, Estimate, MeasureInfo, Results, Spectrum
from hguide.experiments.ablation.sealed import Sealed, read_sealed, write_sealed
from hguide.experiments.ablation.store import Block, Store
from hguide.experiments.ablation.work import features_of_block, stored_features


def block(first: int = 4, count: int = 4) -> Block:
    images = np.random.default_rng(first).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Block(images, tuple(range(first, first + count)), tuple(range(count)), 0.5, None, 5)


def test_a_block_comes_back(tmp_path):
    store = Store(tmp_path)
    assert store.read_block("abc", 4) is None
    store.write_block("abc", block())
    found = store.read_block("abc", 4)
    assert (found.images == block().images).all()
    assert (found.seeds, found.conditions, found.network_calls) == ((4, 5, 6, 7), (0, 1, 2, 3), 5)
    assert (store.image("abc", 6) == block().images[2]).all()
    for seed in (3, 8):
        with pytest.raises(ConfigError, match=f"no image of seed {seed}"):
            store.image("abc", seed)


def test_arrays_without_a_note_are_not_there(tmp_path):
    write_sealed(tmp_path / "a.npz", Sealed({"x": np.arange(3)}))
    (tmp_path / "a.json").unlink()
    assert read_sealed(tmp_path / "a.npz") is None


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone", "note", "other note"])
def test_damage_is_found(damage, tmp_path):
    path, note = tmp_path / "a.npz", tmp_path / "a.json"
    write_sealed(path, Sealed({"x": np.arange(30)}, {"seeds": [1]}))
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    elif damage == "gone":
        path.unlink()
    elif damage == "note":
        note.write_text(note.read_text()[:20])
    elif damage == "other note":
        note.write_text("[]")
    else:
        path.write_bytes(content[:-10] if damage == "cut" else b"")
    with pytest.raises(ConfigError, match=r"a\.npz is damaged"):
        read_sealed(path)


@dataclass(frozen=True)
class Means:
    """A network whose only feature is the mean."""

    name: str = "means"
    hash: str = "0" * 64

    def arrays(self, images):
        return {"features": images.mean((1, 2, 3), keepdims=False)[:, None]}


def test_features_are_of_the_images_that_are_there(tmp_path):
    """A block that was sampled again, by another version for instance, leaves features whose checksum is right."""
    store, network, old = Store(tmp_path), Means(), block()
    new = replace(old, images=255 - old.images)
    features_of_block(store, "abc", old, {"means": network})
    assert (stored_features(store, "abc", old, network)["features"] == network.arrays(old.images)["features"]).all()
    assert stored_features(store, "abc", new, network) is None
    features_of_block(store, "abc", new, {"means": network})
    assert (stored_features(store, "abc", new, network)["features"] == network.arrays(new.images)["features"]).all()
    assert stored_features(store, "abc", old, network) is None


def test_blocks_are_whole_and_do_not_depend_on_the_other_seeds():
    assert block_seeds([5], 4) == [(4, 5, 6, 7)]
    few, many = block_seeds(range(3, 9), 4), block_seeds(range(40), 4)
    assert set(few) <= set(many)
    assert sorted(seed for part in many for seed in part) == list(range(40))


def results(**changes) -> Results:
    cells = tuple(
        CellResult(
            hash=name,
            label=f"cell {name}",
            axes={"model": "toy", "temperature": [1.0, 0.5]},
            varied=("guidance",),
            guidance="cfg(1.5)",
            model_hash="m",
            status="done",
            count=4,
            measures={"kd": Estimate(0.5, 0.25, 1.0, 0.01)},
            seconds_per_image=0.1,
            streams=2,
            network_calls=5,
            spectrum=Spectrum((0.25, 0.5), (1.0, 0.9)),
        )
        for name in "ab"
    )
    entries = {
        "name": "x",
        "title": "X",
        "description": "",
        "config": {"seeds": "0-3"},
        "config_hash": "0",
        "provenance": {"started": "now"},
        "seeds": {"first": 0, "count": 4, "text": "0-3"},
        "classes": {"count": 2, "names": ["a", "b"], "rule": "seed s has class s mod 2"},
        "measures": (MeasureInfo("kd", "KD", False, 3, "d"),),
        "cells": cells,
        "baseline": "a",
        "floor": {"kd": Estimate(0.0, -0.1, 0.1)},
        "comparisons": (Comparison("b", "a", "kd", 0.0, -1.0, 1.0, False),),
    }
    return Results(**(entries | changes))


def test_results_come_back(tmp_path):
    results().write(tmp_path / "results.json")
    assert Results.read(tmp_path) == results()
    assert results().cell("cell b") is not None
    with pytest.raises(ConfigError, match="no cell 'c'; cells: cell a, cell b"):
        results().cell("c")


def test_the_hash_is_of_the_numbers_and_not_of_times():
    whole = results()
    slower = tuple(replace(cell, seconds_per_image=9.0, peak_memory_mb=3.0) for cell in whole.cells)
    assert results(cells=slower, provenance={"started": "later"}).results_hash == whole.results_hash
    other = (whole.cells[0], replace(whole.cells[1], measures={"kd": Estimate(0.5, 0.25, 1.0, 0.02)}))
    assert results(cells=other).results_hash != whole.results_hash


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda facts: facts.update(schema="hguide.results/9"), "schema 'hguide.results/9'"),
        (lambda facts: facts.pop("cells"), "'cells' is missing"),
        (lambda facts: facts["cells"][0].update(colour="red"), "cells 0: 'colour' is unknown"),
        (lambda facts: facts["cells"][0]["measures"]["kd"].update(estimate=0.4), "results_hash"),
        (lambda facts: facts["cells"][0].update(status="fine"), "the status 'fine'"),
        (lambda facts: facts.update(baseline="c"), "baseline 'c' is no cell"),
        (lambda facts: facts["cells"].append(facts["cells"][0]), "'a' stands twice"),
        (lambda facts: facts["floor"].update(fd=facts["floor"]["kd"]), "unknown measure 'fd'"),
        (lambda facts: facts["comparisons"][0].update(against="z"), "names unknown ones"),
    ],
)
def test_what_is_no_result_is_refused(change, expected):
    facts = json.loads(results().to_json())
    change(facts)
    with pytest.raises(ConfigError, match=expected):
        Results.from_json(json.dumps(facts))


def test_numbers_are_finite():
    with pytest.raises(ConfigError, match="not finite: floor.kd.low"):
        results(floor={"kd": Estimate(0.0, -math.inf, 0.1)})
    with pytest.raises(ConfigError, match="damaged"):
        Results.from_json("{")

"""Weights by recipe against the weights the golden tensors were recorded with, bit for bit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hguide.errors import ConfigError
from hguide.experiments.parity.recipe import DERIVED_BUFFERS, recipe_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "var"


@pytest.mark.parametrize("name", ["adaln", "saln"])
def test_recipe_gives_the_recorded_transformer(name: str) -> None:
    stored = load_file(GOLDEN / name / "weights_var.safetensors")
    seed = json.loads((GOLDEN / name / "config.json").read_text())["var_seed"]
    found = recipe_weights({key: tuple(tensor.shape) for key, tensor in stored.items()}, seed)
    assert set(found) == {key for key in stored if not key.endswith(DERIVED_BUFFERS)}
    for key, tensor in found.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, stored[key]), key


@pytest.mark.skipif("HGUIDE_GOLDEN" not in os.environ, reason="HGUIDE_GOLDEN names no golden directory")
@pytest.mark.parametrize(
    ("folder", "seed", "prefix"),
    [("vae_full", "vae_seed", ""), ("d16_full", "vae_seed", "vae."), ("d16_full", "var_seed", "")],
)
def test_recipe_gives_the_recorded_full_size_weights(folder: str, seed: str, prefix: str) -> None:
    root = Path(os.environ["HGUIDE_GOLDEN"]) / "var"
    case = load_file(root / folder / "case.safetensors")
    seed_value = json.loads((root / folder / "config.json").read_text())[seed]
    start = f"check.{prefix}"
    checks = {key.removeprefix(start): tensor for key, tensor in case.items() if key.startswith(start)}
    if not prefix:
        checks = {key: tensor for key, tensor in checks.items() if not key.startswith("vae.")}
    shapes = {key: tuple(tensor.shape) for key, tensor in checks.items()}
    if folder == "d16_full":
        manifest = json.loads((root / f"manifest_{'vae' if prefix else 'd16'}.json").read_text())
        shapes = {key: tuple(manifest[key]) for key in checks}
    found = recipe_weights(shapes, seed_value)
    assert found
    for key, tensor in found.items():
        expected = checks[key].flatten()
        assert torch.equal(tensor.flatten()[: len(expected)], expected), key


def test_a_key_without_a_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no rule for the key 'blocks.0.unknown'"):
        recipe_weights({"blocks.0.unknown": (3,)}, 0)

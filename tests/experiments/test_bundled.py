"""The bundled models: what the wheel carries, one script for all, and the seed laws on real trained networks."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import hguide
from hguide import StepRecord
from hguide.backends.var import VAR
from hguide.errors import ConfigError
from hguide.generator import ScaleGenerator
from hguide.load import BUNDLED, bundled_path
from hguide.testing import check_generator

GUIDANCE = "cfg(1.5) | ssg(0.5)"
# Images that the seed laws are tried with: a network call of VQ-Diffusion costs several of the others.
COUNTS = {"landuse-var": 64, "landuse-hart": 64, "landuse-infinity": 64, "landuse-vqdiffusion": 16}


@pytest.fixture(scope="module")
def model() -> VAR:
    loaded = hguide.load("landuse-var")
    assert isinstance(loaded, VAR)
    return loaded


@pytest.mark.parametrize("name", BUNDLED)
def test_what_the_wheel_carries(name: str) -> None:
    path = bundled_path(name)
    assert path.stat().st_size <= 10e6
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["hguide"])
        dtypes = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118 - not a mapping
    assert {dtype for dtype in dtypes if dtype[0] != "I"} == {"F16"}
    assert facts["name"] == name
    assert facts["family"] == BUNDLED[name]
    assert len(facts["classes"]) == 21
    assert facts["training"]
    assert "/" not in json.dumps(facts["training"]["generator"]["recipe"])


def test_classes_go_by_name_or_index(model: VAR) -> None:
    by_name = hguide.generate(model, ["harbor", "forest"], seeds=[1, 2], deterministic=True)
    by_index = hguide.generate(model, [10, 7], seeds=[1, 2], deterministic=True)
    assert by_name.shape == (2, 3, 64, 64)
    assert torch.equal(by_name, by_index)
    with pytest.raises(ConfigError, match="did you mean 'harbor'"):
        hguide.generate(model, "harbour", seeds=[1])
    with pytest.raises(ConfigError, match="from 0 to 20, got 21"):
        hguide.generate(model, 21, seeds=[1])


@pytest.mark.parametrize("name", BUNDLED)
def test_one_script_runs_on_every_model(name: str) -> None:
    images = hguide.generate(hguide.load(name), ["harbor", "forest"], GUIDANCE, seeds=range(2))
    assert images.shape == (2, 3, 64, 64)
    assert 0 <= images.min() < images.max() <= 1
    assert images.std((1, 2, 3)).min() > 0.02
    # A forest is green: whichever the family, the class is heard.
    red, green, _ = images[1].mean((1, 2))
    assert green > red


def tokens_of(model: ScaleGenerator, seeds: range, **options: object) -> Tensor:
    """All tokens `(seeds, positions)` of a run."""
    found: dict[tuple[int, ...], list[Tensor]] = {}

    def keep(record: StepRecord) -> None:
        found.setdefault(record.seeds, []).append(record.draw.tokens.flatten(1))

    hguide.generate(model, "harbor", GUIDANCE, seeds=seeds, on_step=keep, **options)
    rows = {seed: row for seeds_, maps in found.items() for seed, row in zip(seeds_, torch.cat(maps, 1), strict=True)}
    return torch.stack([rows[seed] for seed in seeds])


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_the_contract(name: str) -> None:
    check_generator(hguide.load(name), "harbor")


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_tokens_at_several_batch_sizes(name: str) -> None:
    model, count = hguide.load(name), COUNTS[name]
    alone = tokens_of(model, range(count), deterministic=True)
    assert torch.equal(alone[5:9], tokens_of(model, range(5, 9), deterministic=True))
    for size in (8, count):
        batched = tokens_of(model, range(count), batch_size=size)
        images = (batched != alone).any(1).float().mean().item()
        tokens = (batched != alone).float().mean().item()
        print(f"{name}, batch {size}: {images:.1%} of images and {tokens:.3%} of tokens differ from those drawn alone")
        # A flipped token changes what follows, so the rate of tokens is a few times that of images at most.
        assert images <= 0.10
    assert not torch.equal(alone[0], alone[1])


@pytest.mark.slow
def test_the_same_image_in_another_process_and_company(model: VAR) -> None:
    code = (
        "import hashlib, hguide; model = hguide.load('landuse-var'); "
        f"images = hguide.generate(model, 10, {GUIDANCE!r}, seeds=[40, 3], deterministic=True); "
        "print(hashlib.sha256(images[1].numpy().tobytes()).hexdigest())"
    )
    # The number of threads decides how the processor sums, as the device does.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    here = hguide.generate(model, 10, GUIDANCE, seeds=[3], deterministic=True)[0]
    assert hashlib.sha256(here.numpy().tobytes()).hexdigest() == done.stdout.strip()

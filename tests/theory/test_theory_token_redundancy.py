"""The measured hierarchy: bands at the cells of a step, and a small run on the bundled model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

import hguide
from hguide.errors import ConfigError
from hguide.generate import run
from hguide.noise import SeededNoise
from hguide.theory.measured import measured_hierarchy
from hguide.theory.token_redundancy import band_values, cosine_samples, measure, sample_runs

MAPS = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 6, 8)))


def test_cosines_at_their_own_places_are_the_map() -> None:
    torch.testing.assert_close(cosine_samples(7, 7), torch.eye(7, dtype=torch.float64))
    spectrum = dctn(MAPS.numpy(), axes=(2, 3), norm="ortho")
    spectrum[:, :, 3:], spectrum[:, :, :, 5:] = 0.0, 0.0
    wanted = np.moveaxis(idctn(spectrum, axes=(2, 3), norm="ortho"), 1, -1)
    np.testing.assert_allclose(band_values(MAPS, (3, 5), (6, 8), "low").numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("grid", [(1, 1), (3, 4), (6, 8)])
def test_low_and_high_make_the_map(grid: tuple[int, int]) -> None:
    low, high, whole = (band_values(MAPS, (2, 3), grid, band) for band in ("low", "high", "all"))
    assert low.shape == (2, *grid, 3)
    torch.testing.assert_close(low + high, whole)


def test_a_smooth_map_is_read_between_its_values() -> None:
    places = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    wave = torch.cos(torch.pi * 2 * places).expand(1, 1, 8, 8)
    read = (torch.arange(5, dtype=torch.float64) + 0.5) / 5
    found = band_values(wave, (3, 3), (5, 5), "low")[0, ..., 0]
    torch.testing.assert_close(found, torch.cos(torch.pi * 2 * read).expand(5, 5))
    assert float(band_values(wave, (2, 2), (5, 5), "low").abs().max()) < 1e-12


def test_other_generators_are_refused() -> None:
    with pytest.raises(ConfigError, match="toy: its tokens do not add up"):
        sample_runs(hguide.load("toy"), "none", 2)
    with pytest.raises(ConfigError, match="at least 20 of them, got 4"):
        measure(hguide.load("toy"), ["none"], 4)
    with pytest.raises(ConfigError, match="each once"):
        measure(hguide.load("toy"), ["none", "none"], 20)


def test_what_the_tokens_add_up_to_is_the_runs_latent() -> None:
    model: Any = hguide.load("landuse-var")
    runs = sample_runs(model, "ssg(0.5)", 2)

    state = run(model, [0, 1], "ssg(0.5)", noise=SeededNoise([0, 1], model.device))
    torch.testing.assert_close(runs.latent.float(), state.latent, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.stack(list(runs.increments)).sum(0), runs.latent)
    assert [tuple(each.shape[1:]) for each in runs.tokens] == [scale.grid for scale in model.scales]


@pytest.mark.slow
def test_the_bundled_model(tmp_path: Path) -> None:
    model = hguide.load("landuse-var")
    found = measured_hierarchy(model, "landuse-var", ["cfg(3)", "cfg(3) | ssg(0.5)"], 20)
    assert len(found.rows) == (model.count - 1) * 2 * 2 * 2
    last = {(row.estimator, row.band): row for row in found.rows if row.step == model.count - 1 and row.change is None}
    for estimator in ("plug-in", "k-NN"):
        # The tokens of the last step are what the high band is made of.
        high, low = last[estimator, "high"], last[estimator, "low"]
        assert high.nats.low > high.control + high.control_spread
        assert high.excess > low.excess
    facts = json.loads(found.to_json())
    assert facts["images"] == 20
    assert facts["guidances"] == ["cfg(3.0)", "cfg(3.0) | ssg(0.5)"]
    assert len(facts["rows"]) == len(found.rows)
    assert "redundancy under cfg(3.0) | ssg(0.5) against cfg(3.0), k-NN: lower at" in found.text()

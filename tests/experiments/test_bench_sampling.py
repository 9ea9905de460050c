"""The straightforward VAR loop is right before anything is held against it, and the sampling benchmark's arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hguide.errors import ConfigError
from hguide.experiments.bench.sampling import SamplingBenchConfig, run
from hguide.experiments.bench.straightforward_var import sort_filter, straightforward_sample
from hguide.experiments.parity.var_model import VARModel
from hguide.grids import Scale, Step
from hguide.sampling import Sampler

GOLDEN = Path(__file__).parents[1] / "golden" / "var"


@pytest.mark.parametrize("name", ["adaln", "saln"])
def test_the_straightforward_loop_replays_the_official_run(name):
    folder = GOLDEN / name
    config = json.loads((folder / "config.json").read_text())
    case = load_file(folder / "case.safetensors")
    model = VARModel(folder, config).generator
    samples = len(case["labels"])
    seen = []

    def check(scale, raw, guided):
        expected = torch.cat([case[f"s{scale}.logits_cond"], case[f"s{scale}.logits_uncond"]])
        torch.testing.assert_close(raw, expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(guided, case[f"s{scale}.logits_cfg"], rtol=0, atol=5e-4)
        seen.append(scale)

    def replay(scale, probabilities):
        kept = case[f"s{scale}.logits_filtered"].isfinite()
        assert torch.equal(probabilities.view(kept.shape) > 0, kept)
        return case[f"s{scale}.tokens"].flatten()

    settings = config["sampling"]
    images = straightforward_sample(
        model,
        case["labels"],
        strength=settings["cfg"],
        top_k=settings["top_k"],
        top_p=settings["top_p"],
        choose=replay,
        on_logits=check,
    )
    assert seen == list(range(len(config["patch_nums"])))
    assert images.shape[0] == samples
    torch.testing.assert_close(images, case["image"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.0), (5, 0.0), (0, 0.8), (6, 0.7)])
def test_the_sort_filter_keeps_what_the_sampler_keeps(top_k, top_p):
    logits = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(top_k)).double() * 2
    kept = sort_filter(logits, top_k, top_p)
    candidates = Sampler(top_k=top_k, top_p=top_p).candidates(logits.view(2, 3, 3, 24), Step(0, 2, 0, Scale(0, 3, 3)))
    places = candidates.channels if candidates.channels is not None else torch.arange(24).expand(2, 9, 24)
    mine = torch.full((2, 9, 24), -torch.inf, dtype=torch.float64).scatter(-1, places, candidates.values)
    assert torch.equal(kept, mine)


def test_the_sampling_benchmark_reports_both_loops_and_writes_them(tmp_path):
    def tiny(device, dtype):
        folder = GOLDEN / "adaln"
        return VARModel(folder, json.loads((folder / "config.json").read_text())).generator

    out = tmp_path / "sampling.json"
    report = run(SamplingBenchConfig(batches=(1, 2), repeat=2, out=out), model=tiny)
    assert [row.quantity for row in report.rows] == ["straightforward / hguide"] * 2
    assert [row.target for row in report.rows] == [1.05, 1.05]
    assert all(row.at_least and row.ms > 0 and row.against_ms > 0 and row.samples == 2 for row in report.rows)
    assert len(json.loads(out.read_text())["rows"]) == 2


@pytest.mark.parametrize("bad", [{"batches": ()}, {"batches": (0,)}, {"repeat": 0}, {"dtype": "float8"}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ConfigError):
        SamplingBenchConfig(**bad)

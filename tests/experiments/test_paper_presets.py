"""The presets of the papers, and the two analyses that are no ablation, on small models with known answers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from hguide.backends.toy import ToyGenerator
from hguide.errors import ConfigError
from hguide.experiments.ablation.results import Comparison
from hguide.experiments.paper.comparison import AGREES, OPPOSITE, UNDECIDED, verdicts
from hguide.experiments.paper.completion import complete, completion_difference, completion_interval
from hguide.experiments.paper.frequency import band_difference, band_interval, step_powers
from hguide.experiments.paper.preset import PRESETS, read_preset
from hguide.experiments.paper.run import PaperOptions, ablation_config, run_preset
from hguide.experiments.paper.spread import QUANTITIES, spread_difference, spread_interval, step_spreads
from hguide.generate import StepRecord, generate
from hguide.guidance import parse
from hguide.load import load
from hguide.sampling import Sampler
from hguide.streams import COND, UNCOND


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_parses_and_names_its_baseline(name: str, published: bool) -> None:
    preset = read_preset(name, published=published)
    labels = [row.label for row in preset.rows]
    assert preset.baseline in labels
    assert len(set(labels)) == len(labels) >= 2
    for row in preset.rows:
        parse(row.guidance.format(strength=row.strength))
        for values in row.reported.values():
            assert set(values) <= set(preset.reported["columns"])
    assert {"ssg": "2602.05534", "igg": "2509.23876"}[name[:3]] in preset.source


def test_parameters_are_filled_in_and_unknown_ones_refused() -> None:
    assert read_preset("ssg-table5").rows[-1].guidance == "cfg(3.0) | ssg(1.0)"
    assert read_preset("ssg-table5", published=True).rows[0].guidance == "cfg(1.5)"
    assert read_preset("ssg-table5", parameters={"beta": 0.25}).rows[-1].guidance == "cfg(3.0) | ssg(0.25)"
    with pytest.raises(ConfigError, match="no parameter 'bta'.*beta"):
        read_preset("ssg-table5", parameters={"bta": 1})
    with pytest.raises(ConfigError, match="unknown preset 'ssg-table50'.*ssg-table5"):
        read_preset("ssg-table50")


@pytest.fixture(scope="module")
def model():
    return load("landuse-var")


def test_frequency_bands_of_the_same_guidance_do_not_differ(model) -> None:
    seeds, labels = range(4), [0, 3, 5, 9]
    one = step_powers(model, labels, "cfg(3.0)", Sampler(), seeds, batch=2)
    other = step_powers(model, labels, "cfg(3.0)", Sampler(), seeds, batch=4)
    guided = step_powers(model, labels, "cfg(3.0) | ssg(2.0)", Sampler(), seeds, batch=4)
    assert one.power.shape == (4, model.count, 32)
    same = band_difference(one, other, 3, "below", replicates=20)
    assert same.estimate == pytest.approx(0, abs=1e-6)
    assert band_difference(one, guided, 3, "below", replicates=20).estimate != pytest.approx(0, abs=1e-6)
    whole = band_interval(one, 3, "above", replicates=20)
    assert whole.low <= whole.estimate <= whole.high
    assert whole.estimate == pytest.approx(float(one.change().above[2]))


def test_completions_end_in_the_reconstruction(model) -> None:
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def distance(x, y):
        return (x - y).square().mean((1, 2, 3))

    def run(guidance):
        return complete(
            model,
            pictures,
            [1, 2, 3],
            ["a", "b", "c"],
            guidance,
            Sampler(),
            distance,
            prefixes=(1, model.count),
            batch=2,
        )

    plain, guided = run("none"), run("cfg(2.0)")
    assert plain.distances.shape == (3, 2)
    latent = model.tokenizer.quantize.accumulate(model.encode(pictures), [scale.grid for scale in model.scales])
    rebuilt = model.tokenizer.decode_latent(latent).add(1).div(2)
    torch.testing.assert_close(plain.distances[:, 1], distance(rebuilt, pictures).double(), rtol=0, atol=1e-5)
    assert completion_difference(plain, guided, model.count, replicates=10).estimate == pytest.approx(0, abs=1e-6)
    assert completion_interval(plain, 1, replicates=10).estimate > completion_interval(plain, model.count, 10).estimate


def test_a_preset_runs_resumes_and_compares(tmp_path) -> None:
    options = PaperOptions("ssg-table1", "landuse-var", tmp_path, seeds="0-7", npz=True, command="test")
    config = ablation_config(read_preset("ssg-table1"), options)
    assert [cell["guidance"] for cell in config["cells"]] == ["cfg(3.0)", "cfg(3.0) | ssg(1.0)"]
    small = replace(options, replicates=20, block=8)
    table = run_preset(small, lambda line: None)
    assert table.ok
    text = (tmp_path / "paper.md").read_text()
    assert "| CFG (baseline) | FID | d16: 3.42<br>d20: 2.67<br>" in text
    assert "compare directions, never numbers" in text
    with np.load(tmp_path / "CFG-SSG.npz") as archive:
        assert archive["arr_0"].shape == (8, 64, 64, 3)
    assert (tmp_path / "report.html").is_file()
    hashed = table.results.results_hash
    assert run_preset(small, lambda line: None).results.results_hash == hashed


def test_published_models_need_a_reference_of_their_own(tmp_path) -> None:
    with pytest.raises(ConfigError, match="give --reference"):
        run_preset(PaperOptions("ssg-table1", "var-d16", tmp_path), lambda line: None)
    with pytest.raises(ConfigError, match="give --data"):
        run_preset(PaperOptions("ssg-fig2", "landuse-var", tmp_path), lambda line: None)
    with pytest.raises(ConfigError, match="one process"):
        run_preset(PaperOptions("ssg-fig4a", "landuse-var", tmp_path, devices=2), lambda line: None)


@pytest.mark.parametrize("given", ["0-", "1,1", "many"])
def test_wrong_seeds_are_told_before_anything_is_written(given: str, tmp_path) -> None:
    with pytest.raises(ConfigError, match="seeds"):
        run_preset(PaperOptions("ssg-table1", "landuse-var", tmp_path / "out", seeds=given), lambda line: None)
    assert not (tmp_path / "out").exists()


def test_verdicts_compare_directions_only() -> None:
    reported = {"d16": {"FID": 3.0, "IS": 290.0}, "d20": {"FID": 2.0, "IS": 280.0}}
    baseline = {"d16": {"FID": 3.5, "IS": 280.0}, "d20": {"FID": 2.5, "IS": 285.0}}

    def difference(low, high):
        return Comparison("a", "b", "kd", (low + high) / 2, low, high, not low <= 0 <= high)

    assert verdicts(reported, baseline, {"kd": difference(-2, -1)}) == {"FID": AGREES}
    assert verdicts(reported, baseline, {"kd": difference(1, 2)}) == {"FID": OPPOSITE}
    # The paper's own models differ in the direction of IS, and this interval spans zero.
    assert verdicts(reported, baseline, {"kd": difference(-1, 2), "score": difference(1, 2)}) == {"FID": UNDECIDED}


def test_the_frequency_preset_writes_its_table(tmp_path) -> None:
    options = PaperOptions("ssg-fig4a", "landuse-var", tmp_path, seeds="0-3", replicates=20)
    table = run_preset(options, lambda line: None)
    places = {place for place, *_ in table.values}
    assert places == {"1x1 to 2x2", "2x2 to 3x3", "3x3 to 4x4", "4x4 to 5x5", "5x5 to 6x6", "6x6 to 8x8"}
    text = (tmp_path / "paper.md").read_text()
    assert text == table.text()
    assert "| step | row | quantity | reported | measured here | less the baseline's | what differs |" in text
    # The paper draws curves, and prints none of their values.
    line = next(each for each in text.splitlines() if each.startswith("| 6x6 to 8x8 | CFG + SSG | change above"))
    assert line.split(" | ")[3] == "only drawn; value not available"
    assert "below and above Nyquist for a curve" in line
    assert "landuse-var for VAR-d16; all tokens" in line
    assert "- images per row: not stated in the paper, 4 here (seeds 0-3)" in text
    assert "- strength of the method: no printed value is known; here cfg = 3, beta = 1" in text
    rows = json.loads((tmp_path / "paper.json").read_text())["rows"]
    assert len(rows) == len(table.values)
    assert {row["reported"] for row in rows} == {"only drawn; value not available"}
    assert "change above Nyquist" in (tmp_path / "figure.svg").read_text()


def test_evenness_and_divergence_against_scipy() -> None:
    """The raw and the scaled signal of one image at the last two steps, from its own logits."""
    toy, records = ToyGenerator(), []
    guidance = "igg(3.0)"
    generate(toy, 1, guidance, seeds=[5], on_step=lambda record: records.append(record.keep()))
    found = step_spreads(toy, [1, 1, 1], guidance, Sampler(), [4, 5, 6], batch=2)

    def shares(record: StepRecord, scaled: bool) -> np.ndarray:
        first = record.logits if scaled else record.predictions[COND]
        peaks = (first - record.predictions[UNCOND])[0].double().amax(-1).clamp_min(0).numpy()
        return peaks / peaks.sum()

    for name, scaled in (("raw", False), ("scaled", True)):
        before, last = (shares(record, scaled) for record in records[-2:])
        even = entropy(before.ravel()) / np.log(before.size)
        assert float(found.values[f"evenness, {name}"][1, 3]) == pytest.approx(even, abs=1e-5)
        # 5x5 and 8x8 have no common cells: both are spread over 40x40.
        wide = np.kron(before, np.ones((8, 8))).reshape(8, 5, 8, 5).sum((1, 3))
        apart = jensenshannon((wide / wide.sum()).ravel(), last.ravel(), base=2) ** 2
        assert float(found.values[f"divergence from the step before, {name}"][1, 4]) == pytest.approx(apart, abs=1e-5)
        assert found.values[f"divergence from the last step, {name}"][:, 4].abs().max() < 1e-12
        assert found.values[f"evenness, {name}"][:, 0].isnan().all()  # one token
    whole = spread_interval(found, QUANTITIES[0], None, replicates=10)
    tokens = np.array([scale.tokens for scale in toy.scales], float)[1:]
    rows = found.values[QUANTITIES[0]][:, 1:].numpy()
    assert whole.estimate == pytest.approx(float((rows @ tokens / tokens.sum()).mean()))
    assert spread_difference(found, found, QUANTITIES[0], 3, replicates=10).estimate == 0.0


def test_cfgs_scaled_signal_has_the_evenness_of_the_raw_one() -> None:
    found = step_spreads(ToyGenerator(), [1, 2], "cfg(3.0)", Sampler(), [4, 5]).values
    torch.testing.assert_close(found["evenness, raw"][:, 1:], found["evenness, scaled"][:, 1:], atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="parts of maps.*hguide trace"):
        step_spreads(ToyGenerator(calls=2), [1], "cfg(3.0)", Sampler(), [4])


def test_the_evenness_preset_writes_table_and_figure(tmp_path) -> None:
    table = run_preset(
        PaperOptions("igg-evenness", "landuse-var", tmp_path, seeds="0-1", replicates=2), lambda line: None
    )
    assert {quantity for _, _, quantity, _, _ in table.values} == set(QUANTITIES)
    assert table.whole in {place for place, *_ in table.values}
    assert "8x8" in (tmp_path / "paper.md").read_text()
    assert "divergence from the last step, scaled" in (tmp_path / "figure.svg").read_text()


def test_igg_scores_are_two_sweeps_of_one_strength(tmp_path) -> None:
    config = ablation_config(read_preset("igg-scores"), PaperOptions("igg-scores", "landuse-var", tmp_path))
    cells = config["cells"][1:]
    assert [cell["strength"] for cell in cells] == [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0] * 2
    assert {cell["guidance"] for cell in cells} == {"cfg({strength})", "igg({strength})"}
    assert cells[-1]["label"] == "IGG 5"

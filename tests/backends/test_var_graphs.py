"""Captured and compiled runs of VAR: the same images, captured once, and nothing shared between batches.

The capture is replaced by one that works on every device; `test_var_cuda.py` has the real one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from repeating_capture import Repeating
from torch import Tensor

import hguide
from hguide import Sampler
from hguide.backends.var import VAR
from hguide.backends.var.files import load_pair
from hguide.errors import ConfigError, NumericalError
from hguide.finite import check_all_finite
from hguide.generate import StepRecord, generate
from hguide.generator import Prepared
from hguide.graphs import CapturedRuns, Outcome
from hguide.grids import Scale, Step
from hguide.noise import SeededNoise
from hguide.priors import DSE
from hguide.priors.compiled import holding, operator
from hguide.sampling import Replay
from hguide.testing import check_generator

GOLDEN = Path(__file__).parents[1] / "golden" / "var"
GUIDANCE = "cfg(1.5, stop=0.5) | ssg(0.5)"


@pytest.fixture(scope="module")
def var() -> VAR:
    config = json.loads((GOLDEN / "adaln" / "config.json").read_text())
    files = (GOLDEN / "adaln" / f"weights_{part}.safetensors" for part in ("var", "vae"))
    return load_pair(*files, patch_nums=tuple(config["patch_nums"]))


def captured(var: VAR) -> tuple[VAR, Repeating]:
    model, capture = var.with_options(), Repeating()
    model.captured = CapturedRuns(capture)
    return model, capture


def test_images_are_those_of_the_plain_run_and_later_batches_capture_nothing(var: VAR) -> None:
    model, capture = captured(var)
    sampler = Sampler(top_k=40, top_p=0.9)
    first = None
    for classes, seeds in ((3, range(3)), ([1, 2, 9], range(3, 6))):
        expected = generate(var, classes, GUIDANCE, sampler, seeds=seeds)
        found = generate(model, classes, GUIDANCE, sampler, seeds=seeds)
        assert torch.equal(found, expected)
        first = first if first is not None else (found, found.clone())
    assert capture.captures == 1
    assert first is not None
    assert torch.equal(*first)
    generate(model, 3, GUIDANCE, sampler, seeds=range(6), batch_size=3)
    assert capture.captures == 1


@pytest.mark.parametrize(
    ("guidance", "sampler", "count"),
    [
        ("cfg(1.5)", Sampler(top_k=40), 2),
        (GUIDANCE, Sampler(top_k=41), 2),
        (GUIDANCE, Sampler(top_k=40), 3),
    ],
)
def test_another_run_is_captured_anew(var: VAR, guidance: str, sampler: Sampler, count: int) -> None:
    model, capture = captured(var)
    generate(model, 3, GUIDANCE, Sampler(top_k=40), seeds=range(2))
    found = generate(model, 3, guidance, sampler, seeds=range(count))
    assert torch.equal(found, generate(var, 3, guidance, sampler, seeds=range(count)))
    assert capture.captures == 2


def test_few_runs_are_kept(var: VAR, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hguide.graphs._MOST_RUNS", 2)
    model, capture = captured(var)
    for strength in (1.0, 2.0, 3.0, 3.0, 2.0, 1.0):
        generate(model, 3, f"cfg({strength})", seeds=[0])
    assert capture.captures == 4


def test_the_contract(var: VAR) -> None:
    check_generator(captured(var)[0], 3)


def test_a_run_inside_another(var: VAR) -> None:
    model, capture = captured(var)
    inner: list[Tensor] = []

    def also_run(record: StepRecord) -> None:
        if record.step.index == 1:
            inner.append(generate(model, 5, "cfg(1.5)", seeds=[7]))

    outer = generate(model, 3, "cfg(1.5)", seeds=[1], on_step=also_run)
    assert torch.equal(outer, generate(var, 3, "cfg(1.5)", seeds=[1]))
    assert torch.equal(inner[0], generate(var, 5, "cfg(1.5)", seeds=[7]))
    assert capture.captures == 1


def test_runs_that_are_not_for_capture_go_on_without(var: VAR) -> None:
    model, capture = captured(var)
    tokens: list[Tensor] = []
    generate(model, 3, GUIDANCE, seeds=[0], on_step=lambda record: tokens.append(record.draw.tokens))
    generate(model, 3, GUIDANCE, Replay(tokens=tokens), seeds=[0])
    generate(model, 3, "autoguidance(0.5)", seeds=[0], models={"weak": var})
    for guidance in ("pag(1.0)", "vpg(0.5)"):
        assert torch.equal(generate(model, 3, guidance, seeds=[0]), generate(var, 3, guidance, seeds=[0]))
    assert capture.captures == 0


def test_other_options_have_runs_of_their_own(var: VAR) -> None:
    model, capture = captured(var)
    smooth = model.with_options(more_smooth=True)
    assert smooth.captured is not None
    assert smooth.captured is not model.captured
    found = [generate(each, 3, "cfg(1.5)", seeds=[0]) for each in (model, smooth)]
    assert torch.equal(found[1], generate(var.with_options(more_smooth=True), 3, "cfg(1.5)", seeds=[0]))
    assert capture.captures == 2


def test_steps_that_are_not_finite_are_named_after_the_replay() -> None:
    scale = Scale(0, 1, 1)
    steps = tuple(Step(index, 3, 0, scale) for index in range(3))
    outcome = Outcome(torch.zeros(1, 3, 2, 2), steps, torch.tensor([True, False, True]))
    runs = CapturedRuns(lambda work: (lambda: None, outcome))
    conditions = Prepared(1, (torch.zeros(1, dtype=torch.int64),))
    found = runs.outcome("key", conditions, SeededNoise([0]), lambda c, n: outcome)
    assert found.finite is not outcome.finite
    with pytest.raises(NumericalError, match="step 1, call 0: not finite"):
        check_all_finite(found.steps, found.finite)
    check_all_finite(found.steps, replace(found, finite=torch.ones(3, dtype=torch.bool)).finite)


def test_priors_given_out_are_held() -> None:
    device, prior = torch.device("cpu"), DSE()
    with holding() as outer:
        first = operator(prior, (2, 2), (3, 3), None, device, torch.float32)
        with holding() as inner:
            second = operator(prior, (2, 2), (4, 4), None, device, torch.float32)
    operator(prior, (2, 2), (5, 5), None, device, torch.float32)
    assert outer[0] is first
    assert inner[0] is second
    assert len(outer) == len(inner) == 1


def test_graphs_need_a_cuda_device(var: VAR) -> None:
    with pytest.raises(ConfigError, match="graphs=True needs a CUDA device, the model lies on cpu: load it with"):
        var.with_options(graphs=True)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_types")  # the compiler cannot trace the checks
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when its compiler is imported
def test_the_blocks_share_their_compilations(var: VAR) -> None:
    torch._dynamo.reset()
    compiled = var.with_options(compile=True)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for classes, seeds in ((3, range(2)), (4, range(2, 5))):
        expected = generate(var, classes, GUIDANCE, Sampler(top_k=1), seeds=seeds)
        found = generate(compiled, classes, GUIDANCE, Sampler(top_k=1), seeds=seeds)
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    made = torch._dynamo.utils.counters["stats"]["unique_graphs"] - before
    # Two halves: of one token, of more, of more after a stream is dropped; the decoder of 2 images and of any number.
    # Three blocks with compilations of their own would need three times the halves.
    assert made <= 2 * 3 + 2
    assert compiled.transformer.blocks[0].attn is var.transformer.blocks[0].attn
    # The seed law holds to the bit within one form of the model.
    alone = generate(compiled, 3, GUIDANCE, seeds=range(4), deterministic=True)
    assert torch.equal(generate(compiled, 3, GUIDANCE, seeds=[3, 1], deterministic=True), alone[[3, 1]])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when its compiler is imported
def test_models_are_loaded_with_graphs_and_compilation() -> None:
    plain, compiled = hguide.load("landuse-var"), hguide.load("landuse-var", compile=True)
    assert isinstance(plain, VAR)
    assert isinstance(compiled, VAR)
    assert compiled.decode_latent != compiled.tokenizer.decode_latent
    assert plain.decode_latent == plain.tokenizer.decode_latent
    with pytest.raises(ConfigError, match="graphs=True needs a CUDA device"):
        hguide.load("landuse-var", graphs=True)

"""Captured and compiled steps of VAR: the same images, captured once, and nothing shared between runs.

The capture is replaced by one that works on every device; `test_var_cuda.py` has the real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from hguide import Sampler
from hguide.backends.var import VAR
from hguide.backends.var.files import load_pair
from hguide.backends.var.graphs import CapturedRuns
from hguide.backends.var.transformer import Modulation
from hguide.errors import ConfigError
from hguide.generate import StepRecord, generate
from hguide.testing import check_generator

GOLDEN = Path(__file__).parents[1] / "golden" / "var"
GUIDANCE = "cfg(1.5, stop=0.5) | ssg(0.5)"


@pytest.fixture(scope="module")
def var() -> VAR:
    config = json.loads((GOLDEN / "adaln" / "config.json").read_text())
    files = (GOLDEN / "adaln" / f"weights_{part}.safetensors" for part in ("var", "vae"))
    return load_pair(*files, patch_nums=tuple(config["patch_nums"]))


class Repeating:
    """Captures as a graph does: the work is done again, into the tensors of its first result."""

    def __init__(self) -> None:
        self.captures = 0

    def __call__(self, work: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        self.captures += 1
        result = work()

        def replay() -> None:
            for old, new in zip(tensors(result), tensors(work()), strict=True):
                old.copy_(new)

        for tensor in tensors(result):
            tensor.fill_(torch.nan)  # A graph has computed nothing before its first replay.
        return replay, result


def tensors(result: Tensor | Modulation) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    else:
        yield from (result.start, result.head_gain, result.head_shift)
        yield from (block.vectors for block in result.blocks)


def captured(var: VAR) -> tuple[VAR, Repeating]:
    model, capture = var.with_options(), Repeating()
    model.captured = CapturedRuns(capture)
    return model, capture


def test_images_are_those_of_the_plain_run_and_later_batches_capture_nothing(var: VAR) -> None:
    model, capture = captured(var)
    sampler = Sampler(top_k=40, top_p=0.9)
    for classes, seeds in ((3, range(3)), ([1, 2, 9], range(3, 6))):
        expected = generate(var, classes, GUIDANCE, sampler, seeds=seeds)
        assert torch.equal(generate(model, classes, GUIDANCE, sampler, seeds=seeds), expected)
        assert capture.captures == 1 + var.count + 1  # modulation, steps, decoder
    generate(model, 3, "cfg(1.5)", sampler, seeds=range(3))
    # The null stream lives on in the second half: the last two steps are others, the modulation is not.
    assert capture.captures == 1 + var.count + 1 + 2
    generate(model, 3, GUIDANCE, sampler, seeds=range(6), batch_size=3)
    assert capture.captures == 1 + var.count + 1 + 2


def test_the_contract(var: VAR) -> None:
    check_generator(captured(var)[0], 3)


def test_logits_of_a_batch_outlive_the_next(var: VAR) -> None:
    model, _ = captured(var)
    records: list[StepRecord] = []
    generate(model, 3, "cfg(1.5)", seeds=[0], on_step=records.append)
    kept = [logits.clone() for record in records for logits in record.predictions.values()]
    del records[-1:]
    generate(model, 4, "cfg(1.5)", seeds=[1])
    now = [logits for record in records for logits in record.predictions.values()]
    assert len(now) >= 2 * (var.count - 2)
    assert all(torch.equal(a, b) for a, b in zip(now, kept, strict=False))


def test_a_run_in_the_middle_keeps_its_graphs_to_itself(var: VAR) -> None:
    model, capture = captured(var)
    inner: list[Tensor] = []

    def also_run(record: StepRecord) -> None:
        if record.step.index == 1:
            inner.append(generate(model, 5, "cfg(1.5)", seeds=[7]))

    outer = generate(model, 3, "cfg(1.5)", seeds=[1], on_step=also_run)
    assert torch.equal(outer, generate(var, 3, "cfg(1.5)", seeds=[1]))
    assert torch.equal(inner[0], generate(var, 5, "cfg(1.5)", seeds=[7]))
    both = capture.captures
    generate(model, 3, "cfg(1.5)", seeds=[1], on_step=also_run)
    assert capture.captures == both


@pytest.mark.parametrize("guidance", ["pag(1.0)", "vpg(0.5)"])
def test_changed_streams_run_without_graphs(var: VAR, guidance: str) -> None:
    model, capture = captured(var)
    assert torch.equal(generate(model, 3, guidance, seeds=[0]), generate(var, 3, guidance, seeds=[0]))
    assert capture.captures == 0


def test_graphs_need_a_cuda_device(var: VAR) -> None:
    with pytest.raises(ConfigError, match="graphs=True needs a CUDA device, the model lies on cpu: load it with"):
        var.with_options(graphs=True)


@pytest.fixture
def _unchecked_shapes() -> Iterator[None]:
    """The compiler cannot trace the checks of shapes that the tests put around each function."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.slow
@pytest.mark.usefixtures("_unchecked_shapes")
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

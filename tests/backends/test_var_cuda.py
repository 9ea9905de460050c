"""VAR on a CUDA device against the CPU's float32: logits, tokens, graphs and compilation."""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from torch import Tensor

import hguide
from hguide import COND, UNCOND, Sampler, StepRecord
from hguide.backends.var import VAR
from hguide.errors import NumericalError
from hguide.experiments.bench.inference import VARIANTS, flip_rate
from hguide.noise import SeededNoise
from hguide.sampling import Replay

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("default"),  # what the compilers of another PyTorch say is not ours
]

GUIDANCE = "cfg(1.5, stop=0.5) | ssg(0.5)"
SAMPLER = Sampler(top_k=200, top_p=0.96)
SEEDS = range(8)
# Guided logits reach 30; on the CPU the worst of bfloat16 is off by 0.7, the root mean square by 0.11.
FLOAT32_TOLERANCE, BFLOAT16_TOLERANCE = 2e-3, 1.2
FLIPS = {torch.float32: 0.005, torch.bfloat16: 0.08}


def model(device: str, dtype: torch.dtype = torch.float32, variant: str = "eager") -> VAR:
    loaded = hguide.load("landuse-var", device=device, dtype=dtype)
    assert isinstance(loaded, VAR)
    return VARIANTS[variant](loaded)


@pytest.fixture(autouse=True)
def _unchecked_shapes() -> Iterator[None]:
    """The compiler cannot trace the checks of shapes that the tests put around each function."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(autouse=True)
def _float32_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default PyTorch rounds the operands of float32 convolutions to ten bits on a CUDA device."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def expected() -> tuple[list[Tensor], list[Tensor]]:
    """Tokens and guided logits of float32 on the CPU."""
    records: list[StepRecord] = []
    hguide.generate(model("cpu"), 3, GUIDANCE, SAMPLER, seeds=SEEDS, on_step=lambda r: records.append(r.keep()))
    return [record.draw.tokens for record in records], [record.logits for record in records]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_the_cpu(
    expected: tuple[list[Tensor], list[Tensor]], variant: str, dtype: torch.dtype
) -> None:
    tokens, logits = expected
    tolerance = FLOAT32_TOLERANCE if dtype == torch.float32 else BFLOAT16_TOLERANCE
    found = model("cuda", dtype, variant)
    for _ in range(2):  # A graph is captured in the first batch and replayed in the second.
        records: list[StepRecord] = []
        keep = lambda record: records.append(record.keep())  # noqa: E731, B023
        hguide.generate(found, 3, GUIDANCE, Replay(tokens=tokens), seeds=SEEDS, on_step=keep)
        for record, wanted in zip(records, logits, strict=True):
            worst = (record.logits - wanted).abs().max().item()
            assert worst <= tolerance, f"step {record.step.index}: {worst:.3g}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_differ_near_ties_alone(dtype: torch.dtype) -> None:
    reference = model("cuda")
    for name in VARIANTS:
        rate = flip_rate(reference, model("cuda", dtype, name), seeds=range(16))
        print(f"{dtype}, {name}: {rate:.3%} of tokens differ from those of float32 run plainly")
        assert rate <= FLIPS[dtype], name


@pytest.mark.parametrize("variant", ["graphs", "compile+graphs"])
def test_later_batches_and_interleaved_runs(variant: str) -> None:
    plain, captured = model("cuda"), model("cuda", variant=variant)
    inner: list[Tensor] = []

    def also_run(record: StepRecord) -> None:
        if record.step.index == 2:
            inner.append(hguide.generate(captured, 5, GUIDANCE, SAMPLER, seeds=[7, 8]))

    for classes, seeds in ((3, [0, 1]), ([4, 11], [2, 3]), (3, [0, 1])):
        found = hguide.generate(captured, classes, GUIDANCE, SAMPLER, seeds=seeds, on_step=also_run)
        wanted = hguide.generate(plain, classes, GUIDANCE, SAMPLER, seeds=seeds)
        near = (found - wanted).abs().amax((1, 2, 3)) <= 1e-2
        assert near.sum() >= 1, "both images differ"
    assert torch.equal(inner[0], inner[1])


def test_the_seed_law_holds_with_graphs() -> None:
    captured = model("cuda", variant="graphs")
    alone = hguide.generate(captured, 3, GUIDANCE, SAMPLER, seeds=SEEDS, deterministic=True)
    again = hguide.generate(captured, 3, GUIDANCE, SAMPLER, seeds=[5, 2], deterministic=True)
    assert torch.equal(again, alone[[5, 2]])


def test_a_step_waits_for_nothing() -> None:
    """From the labels to the images no call blocks the program until the device is done, where the maps are small."""
    for variant in ("eager", "graphs"):
        found = model("cuda", variant=variant)
        for timed in (False, True):
            noise = SeededNoise([0, 1], found.device)
            torch.cuda.set_sync_debug_mode("error" if timed else "default")
            try:
                state = found.begin([3, 4], {COND: found.count - 1, UNCOND: found.count - 1}, noise)
                while (step := found.next_step(state)) is not None:
                    logits = found.predict(state, step, (COND, UNCOND), {})
                    draw = found.sample(state, step, logits[COND], SAMPLER, {})
                    found.advance(state, step, draw)
                found.decode(state)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            del state  # What it captured is idle again.


def test_logits_that_are_not_finite_are_named_at_the_end() -> None:
    broken = model("cuda")
    broken.transformer.head.bias.fill_(torch.nan)
    with pytest.raises(NumericalError, match="step 0, call 0: not finite in the model's logits"):
        hguide.generate(broken, 3, GUIDANCE, SAMPLER, seeds=[0])

"""`Guide` in hand-written loops: the same logits as the library's own loop, whatever the loop does to its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hguide import (
    COND,
    UNCOND,
    Binary,
    Categorical,
    Draw,
    Guide,
    Sampler,
    Scale,
    ScaleGenerator,
    Step,
    Stream,
    generate,
)
from hguide.backends.toy import ToyGenerator
from hguide.errors import ConfigError, ParseError, ShapeError, StreamError
from hguide.guidance import Guidance, parse
from hguide.noise import SeededNoise
from hguide.streams import Corruption

GOLDEN = Path(__file__).parents[1] / "golden" / "var" / "adaln" / "case.safetensors"
PATCH_NUMS = (1, 2, 3, 5)
TEXTS = ["none", "cfg(1.5)", "ssg(0.8)", "cfg(1.5) | ssg(0.8, prior=dse(gain=amplitude))", "cfg + ssg(remember=output)"]


def spoil(*tensors: Tensor) -> None:
    """The in-place filter of the official loops, and worse."""
    for tensor in tensors:
        tensor.masked_fill_(tensor < tensor.median(), -math.inf)


def golden() -> list[tuple[Tensor, Tensor]]:
    case = load_file(GOLDEN)
    return [(case[f"s{k}.logits_cond"], case[f"s{k}.logits_uncond"]) for k in range(4)]


def expected(guidance: Guidance) -> list[Tensor]:
    memory = {}
    results = []
    for k, (cond, uncond) in enumerate(golden()):
        step = Step(k, 4, 0, Scale(k, PATCH_NUMS[k], PATCH_NUMS[k]))
        maps = {COND: cond.unflatten(1, step.grid), UNCOND: uncond.unflatten(1, step.grid)}
        guided, memory = guidance.apply(maps, step, memory)
        results.append(guided.flatten(1, 2).clone())
    return results


class Recorded(ScaleGenerator):
    """Predicts the golden logits whatever was drawn."""

    name = "recorded"
    channels = Categorical(64)
    scales = tuple(Scale(k, side, side) for k, side in enumerate(PATCH_NUMS))
    tokenizer_hash = "recorded"

    def begin(self, condition: Sequence[Any], streams: Mapping[Stream, int], noise: Any, negative: Any = None) -> Any:
        return {"index": 0, "noise": noise}

    def next_step(self, state: Any) -> Step | None:
        k = state["index"]
        return None if k == self.count else Step(k, self.count, 0, self.scales[k])

    def predict(self, state: Any, step: Step, streams: Sequence[Stream], weights: Any) -> dict[Stream, Tensor]:
        maps = dict(zip((COND, UNCOND), golden()[step.index], strict=True))
        return {stream: maps[stream].unflatten(1, step.grid) for stream in streams}

    def sample(self, state: Any, step: Step, logits: Tensor, sampler: Sampler, weights: Any) -> Draw:
        return Draw(sampler.categorical(logits, state["noise"], step))

    def advance(self, state: Any, step: Step, draw: Draw) -> None:
        state["index"] += 1

    def decode(self, state: Any) -> Tensor:
        return torch.zeros(2, 3, 1, 1)


def filter_in_place(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """What VAR does to the guided logits: top-k, then top-p from the least probable on, in the tensor itself."""
    logits[logits < logits.topk(top_k).values[..., -1:]] = -math.inf
    values, order = logits.sort(dim=-1)
    drop = values.softmax(-1).cumsum(-1) <= 1.0 - top_p
    drop[..., -1] = False
    return logits.masked_fill_(torch.zeros_like(drop).scatter(-1, order, drop), -math.inf)


@pytest.mark.parametrize("text", [*TEXTS, "igg(2.0, cross=0.5) | ssg", "apg(2.0, momentum=-0.5) | family(0.3)"])
def test_a_hand_written_loop_with_an_in_place_filter_draws_what_generate_draws(text: str) -> None:
    wanted: list[Tensor] = []
    sampler = Sampler(top_k=20, top_p=0.9)
    generate(Recorded(), 3, text, sampler, seeds=[4, 5], on_step=lambda r: wanted.append(r.draw.tokens.flatten(1)))
    guide, noise = Guide(text, PATCH_NUMS), SeededNoise([4, 5])
    for k, (cond, uncond) in enumerate(golden()):
        logits = filter_in_place(guide(cond, uncond, k), 20, 0.9)
        spoil(cond, uncond)
        gumbel = noise.gumbel(Step(k, 4, 0, Recorded.scales[k]), "token", logits.shape[1], 64)
        assert torch.equal((logits + gumbel).argmax(-1), wanted[k]), k


def test_with_cfg_the_filtered_logits_are_those_of_the_official_run() -> None:
    guide, case = Guide("cfg(1.5)", PATCH_NUMS), load_file(GOLDEN)
    for k, (cond, uncond) in enumerate(golden()):
        filtered = filter_in_place(guide(cond, uncond, k), 20, 0.9)
        torch.testing.assert_close(filtered, case[f"s{k}.logits_filtered"], atol=5e-4, rtol=0)


@pytest.mark.parametrize("text", TEXTS)
def test_a_loop_that_spoils_everything_gets_the_same_logits(text: str) -> None:
    guide = Guide(text, PATCH_NUMS)
    for _ in range(2):  # k = 0 begins a new image by itself.
        for k, (cond, uncond) in enumerate(golden()):
            logits = guide(cond, uncond, k)
            torch.testing.assert_close(logits, expected(parse(text))[k], atol=1e-6, rtol=0)
            spoil(logits, cond, uncond)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_returned_is_a_tensor_of_its_own(text: str, dtype: torch.dtype) -> None:
    guide = Guide(text, PATCH_NUMS)
    for k, (cond, uncond) in enumerate(golden()):
        given = [cond.to(dtype), uncond.to(dtype)]
        before = [each.clone() for each in given]
        logits = guide(*given, k)
        assert logits.dtype == dtype
        logits.fill_(7.0)
        assert all(map(torch.equal, given, before)), k


def test_cfg_equals_the_recorded_line_of_the_official_loop() -> None:
    guide = Guide("cfg(1.5)", PATCH_NUMS)
    case = load_file(GOLDEN)
    for k, (cond, uncond) in enumerate(golden()):
        torch.testing.assert_close(guide(cond, uncond, k), case[f"s{k}.logits_cfg"], atol=5e-4, rtol=0)


def test_pairs_of_logits_per_bit_go_in_and_out() -> None:
    pairs = torch.randn(2, 2, 9, 4, 2, 2)  # stream, b, tokens, bits, pair; two scales taken from it
    paired, bitwise = Guide("cfg(w=3.0) | ssg", (1, 3), Binary(4)), Guide("cfg(w=3.0) | ssg", (1, 3), Binary(4))
    for k, tokens in enumerate((1, 9)):
        c, u = pairs[0, :, :tokens, :, :, k], pairs[1, :, :tokens, :, :, k]
        from_pairs = paired(c.flatten(2), u.flatten(2), k).unflatten(2, (4, 2))
        from_bits = bitwise(c[..., 1] - c[..., 0], u[..., 1] - u[..., 0], k)
        assert from_pairs.shape == c.shape
        torch.testing.assert_close(from_pairs[..., 1] - from_pairs[..., 0], from_bits, atol=1e-5, rtol=0)


def test_guiding_differences_is_guiding_both_channels() -> None:
    both, guide = Guide("cfg(w=3.0) | ssg", (1, 3)), Guide("cfg(w=3.0) | ssg", (1, 3), Binary(4))
    for k, tokens in enumerate((1, 9)):
        c, u = torch.randn(2, tokens, 8), torch.randn(2, tokens, 8)
        two, one = both(c, u, k).unflatten(2, (4, 2)), guide(c, u, k).unflatten(2, (4, 2))
        torch.testing.assert_close(two[..., 1] - two[..., 0], one[..., 1] - one[..., 0], atol=1e-4, rtol=0)


def test_tau_is_undone_and_done_again() -> None:
    plain, tempered = Guide("cfg(1.5) | ssg", PATCH_NUMS), Guide("cfg(1.5) | ssg", PATCH_NUMS)
    for k, (cond, uncond) in enumerate(golden()):
        tau = 0.5 + k
        logits = tempered(cond / tau, uncond / tau, k, tau=tau)
        torch.testing.assert_close(logits, plain(cond, uncond, k) / tau, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("width", [4, 8])
def test_half_pairs_and_tau_are_computed_in_float32_and_rounded_once(width: int) -> None:
    half, wide = Guide("cfg(w=3.0) | ssg", (1, 3), Binary(4)), Guide("cfg(w=3.0) | ssg", (1, 3), Binary(4))
    for k, tokens in enumerate((1, 9)):
        c, u = (4.0 * torch.randn(2, 2, tokens, width)).to(torch.bfloat16)
        logits = half(c, u, k, tau=0.3)
        assert torch.equal(logits, wide(c.float(), u.float(), k, tau=0.3).to(torch.bfloat16))


def test_masking_comes_after_guiding() -> None:
    """As documented: -inf in both maps has no difference, and what is masked afterwards reaches no memory."""
    masked, guide = Guide("cfg(w=3.0) | ssg", PATCH_NUMS), Guide("cfg(w=3.0) | ssg", PATCH_NUMS)
    for k, (cond, uncond) in enumerate(golden()):
        logits = masked(cond, uncond, k)
        logits[..., 5] = -math.inf
        wanted = guide(cond, uncond, k)
        assert torch.equal(logits[..., 6:], wanted[..., 6:])
        assert torch.isfinite(wanted).all()
        cond[..., 5] = uncond[..., 5] = -math.inf
        assert Guide("cfg(w=3.0)", [PATCH_NUMS[k]])(cond, uncond, 0)[..., 5].isnan().all()


def test_single_rows_as_harts_first_scale_has_them() -> None:
    guide = Guide("cfg | ssg", [Scale(0, 1, 1), (2, 3)])
    assert guide(torch.randn(2, 1, 8), torch.randn(2, 1, 8), 0).shape == (2, 1, 8)
    assert guide(torch.randn(2, 6, 8), torch.randn(2, 6, 8), 1).shape == (2, 6, 8)


def test_what_cannot_be_guided_says_why() -> None:
    guide = Guide("cfg(1.5) | ssg", PATCH_NUMS)
    (cond, uncond), *_ = golden()
    guide(cond, uncond, 0)
    with pytest.raises(ConfigError, match="scale 1 of 4 comes next, got k = 2"):
        guide(torch.randn(2, 9, 64), torch.randn(2, 9, 64), 2)
    with pytest.raises(ShapeError, match=r"scale 1 is 2x2, so logits are \(B, 4, V\), got \(2, 3, 64\); partial maps"):
        guide(torch.randn(2, 3, 64), torch.randn(2, 3, 64), 1)
    with pytest.raises(StreamError, match="asks for the null stream at k = 1, but uncond is None"):
        guide(torch.randn(2, 4, 64), None, 1)
    with pytest.raises(ShapeError, match="differ in shape"):
        guide(torch.randn(2, 4, 64), torch.randn(1, 4, 64), 1)
    with pytest.raises(ConfigError, match="tau is a positive temperature"):
        guide(torch.randn(2, 4, 64), torch.randn(2, 4, 64), 1, tau=0.0)
    with pytest.raises(ShapeError, match="expected 63 channels, got 64"):
        Guide("none", PATCH_NUMS, Categorical(63))(cond, None, 0)
    with pytest.raises(ConfigError, match="scales is empty"):
        Guide("cfg", ())
    with pytest.raises(ParseError, match="did you mean 'ssg'"):
        Guide("sgs", PATCH_NUMS)


def test_uncond_may_be_missing_where_it_is_not_asked_for() -> None:
    guide = Guide("ssg(0.5)", PATCH_NUMS)
    for k, (cond, _) in enumerate(golden()):
        assert guide(cond, None, k).shape == cond.shape


def test_methods_that_need_other_streams_are_refused_with_the_reason() -> None:
    from hguide.guidance import from_callable

    corrupt = COND.corrupted(Corruption(0.1))
    with pytest.raises(StreamError, match="prefix corrupted 0.1.*two maps has only"):
        Guide(from_callable(lambda base, other, step: base, asks=(corrupt,)), PATCH_NUMS)


def test_the_toys_run_through_a_guide_equals_generate() -> None:
    """The library's own loop and a hand-written one over the same generator."""
    import hguide
    from hguide.noise import SeededNoise
    from hguide.sampling import Sampler

    toy = ToyGenerator()
    wanted = hguide.generate(toy, 1, "cfg(1.5) | ssg(0.5)", seeds=[3, 4])
    guide = Guide("cfg(1.5) | ssg(0.5)", [scale.grid for scale in toy.scales])
    state = toy.begin([1, 1], {COND: 4, UNCOND: 4}, SeededNoise([3, 4]))
    while (step := toy.next_step(state)) is not None:
        maps = toy.predict(state, step, (COND, UNCOND), {})
        logits = guide(maps[COND].flatten(1, 2), maps[UNCOND].flatten(1, 2), step.index)
        toy.advance(state, step, toy.sample(state, step, logits.unflatten(1, step.grid), Sampler(), {}))
    assert torch.equal(toy.decode(state), wanted)

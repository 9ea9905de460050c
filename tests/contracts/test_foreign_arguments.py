"""What `Guide` takes, and what it refuses where no checker of signatures does so before it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hguide import Guide
from hguide.errors import ConfigError, HGuideError, ParseError, ShapeError
from hguide.generator import Binary, Categorical
from hguide.grids import Scale
from hguide.guidance import CFG, Identity

unchecked = pytest.mark.usefixtures("unchecked_types")


def maps(tokens: int = 1, *, batch: int = 2, width: int = 8, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(batch, tokens, width).to(dtype) for _ in range(2)]


@pytest.mark.parametrize(
    "scales",
    [
        (1, 2, 3),
        [1, 2, 3],
        range(1, 4),
        np.array([1, 2, 3]),
        torch.tensor([1, 2, 3]),
        [np.int64(1), torch.tensor(2), np.int32(3)],
        [(1, 1), (2, 2), (3, 3)],
        ((1, 1, 1), (1, 2, 2), (1, 3, 3)),
        np.array([[1, 1], [2, 2], [3, 3]]),
        torch.tensor([[1, 1, 1], [1, 2, 2], [1, 3, 3]]),
        [Scale(4, 1, 1), [2, 2], (np.int64(3), 3)],
        (side for side in (1, 2, 3)),
    ],
)
def test_scales_are_taken_as_loops_have_them(scales: Any) -> None:
    assert Guide("cfg | ssg", scales).scales == (Scale(0, 1, 1), Scale(1, 2, 2), Scale(2, 3, 3))


@unchecked
@pytest.mark.parametrize(
    ("scales", "message"),
    [
        (5, "Guide: scales holds the side or grid of each scale, for instance (1, 2, 3, 4), got 5"),
        (None, "scales holds the side or grid of each scale, for instance (1, 2, 3, 4), got None"),
        ("123", "scales holds the side or grid of each scale, for instance (1, 2, 3, 4), got '123'"),
        (torch.tensor(5), "scales holds the side or grid of each scale"),
        ((), "scales is empty"),
        ((1, -1), "scale 1 is a side, a grid (h, w) or (1, h, w), in whole numbers from 1, got -1"),
        ((0, 1), "scale 0 is a side"),
        ((1, 2.0), "scale 1 is a side, a grid (h, w) or (1, h, w), in whole numbers from 1, got 2.0"),
        (np.array([1.0, 2.0]), "scale 0 is a side"),
        ((1, "2"), "scale 1 is a side"),
        ((1, None), "scale 1 is a side"),
        (((2, 4, 4),), "scale 0 is a side, a grid (h, w) or (1, h, w), in whole numbers from 1, got (2, 4, 4)"),
        (((1, 1), (2, 3, 4, 5)), "scale 1 is a side"),
        (((1, 1), (2, "3")), "scale 1 is a side"),
        (((1, 0),), "scale 0 is a side"),
        (((),), "scale 0 is a side"),
    ],
)
def test_scales_that_are_none(scales: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Guide("cfg", scales)


def test_no_guidance_is_the_identity_as_in_generate() -> None:
    guide = Guide(None, (1,))
    cond, uncond = maps()
    assert guide.guidance == Identity()
    assert torch.equal(guide(cond, uncond, 0), cond)


@unchecked
@pytest.mark.parametrize(
    ("guidance", "message"),
    [
        (3, 'guidance is a Guidance, its text form such as "cfg(1.5) | ssg(0.8)", or None, got 3'),
        (1.5, "or None, got 1.5"),
        (CFG, "or None, got <class"),
        (["cfg"], "or None, got ['cfg']"),
    ],
)
def test_guidance_that_is_none(guidance: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Guide(guidance, (1, 2))
    with pytest.raises(ParseError):
        Guide("", (1, 2))


@unchecked
@pytest.mark.parametrize("channels", [8, "8", Categorical])
def test_channels_say_of_what(channels: Any) -> None:
    message = "channels is Categorical(v), Binary(bits), or None for whatever comes, got "
    with pytest.raises(ConfigError, match=re.escape(message + repr(channels))):
        Guide("cfg", (1, 2), channels)


@pytest.mark.parametrize("make", [int, np.int64, np.uint8, torch.tensor])
def test_k_is_any_whole_number(make: Any) -> None:
    guide = Guide("cfg | ssg", (1, 2))
    for k in (0, 1, 0):
        assert guide(*maps((k + 1) ** 2), make(k)).shape == (2, (k + 1) ** 2, 8)


@unchecked
@pytest.mark.parametrize(
    ("k", "message"),
    [
        (0.0, "k is the index of a scale, a whole number, got 0.0"),
        ("0", "k is the index of a scale, a whole number, got '0'"),
        (None, "a whole number, got None"),
        (torch.tensor([0, 1]), "a whole number, got tensor"),
        (torch.tensor(0.0), "a whole number, got tensor"),
        (-1, "scale 0 of 2 comes next, got k = -1; k = 0 begins"),
        (2, "scale 0 of 2 comes next, got k = 2"),
    ],
)
def test_a_k_that_is_none(k: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Guide("cfg", (1, 2))(*maps(), k)


def test_a_run_that_is_over_begins_again() -> None:
    guide = Guide("cfg(w=2.0)", (1,))
    guide(*maps(), 0)
    with pytest.raises(ConfigError, match="scale 1 of 1 comes next, got k = 1; k = 0 begins"):
        guide(*maps(), 1)
    guide(*maps(), 0)


@unchecked
@pytest.mark.parametrize(
    ("cond", "uncond", "message"),
    [
        ([[[1.0]]], torch.zeros(1, 1, 1), "cond is a tensor of logits (B, L, V), got list"),
        (None, torch.zeros(1, 1, 1), "cond is a tensor of logits (B, L, V), got NoneType"),
        (np.zeros((1, 1, 1)), None, "cond is a tensor of logits (B, L, V), got ndarray"),
        (torch.zeros(1, 1, 1), np.zeros((1, 1, 1)), "uncond is a tensor of logits (B, L, V), got ndarray"),
        (torch.zeros(1, 1, 1).long(), None, "cond holds logits, floating-point numbers, got torch.int64; not tokens"),
        (
            torch.zeros(1, 1, 1),
            torch.zeros(1, 1, 1).int(),
            "uncond holds logits, floating-point numbers, got torch.int",
        ),
        (torch.zeros(1, 1, 1) * 1j, None, "got torch.complex64"),
        (torch.zeros(0, 1, 4), torch.zeros(0, 1, 4), "logits are of a sample and a channel at least, got (0, 1, 4)"),
        (torch.zeros(2, 1, 0), torch.zeros(2, 1, 0), "logits are of a sample and a channel at least, got (2, 1, 0)"),
        (torch.zeros(2, 1, 4), torch.zeros(2, 1, 4, device="meta"), "cond lies on cpu, but uncond on meta"),
        (torch.zeros(2, 4), torch.zeros(2, 4), "logits are (B, 1, V), got (2, 4)"),
        (torch.zeros(()), None, "logits are (B, 1, V), got ()"),
        (torch.zeros(2, 1, 1, 4), None, "logits are (B, 1, V), got (2, 1, 1, 4)"),
    ],
)
def test_logits_that_are_none(cond: Any, uncond: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=re.escape(message)):
        Guide("cfg | ssg", (1, 2))(cond, uncond, 0)


CHANGES = [
    ({"batch": 3}, "scale 1 has batch 3 but 2 before"),
    ({"width": 9}, "scale 1 has vocabulary 9 but 8 before"),
    ({"dtype": torch.bfloat16}, "scale 1 has dtype torch.bfloat16 but torch.float32 before"),
    ({"batch": 1, "width": 9}, "scale 1 has batch 1 but 2 before, vocabulary 9 but 8 before; batch, vocabulary, dtype"),
]


@pytest.mark.parametrize("text", ["none", "cfg(w=2.0)", "cfg | ssg", "ssg(remember=mean)", "igg(cross=1.0)"])
@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_what_changes_inside_an_image(text: str, change: dict[str, Any], message: str) -> None:
    guide, fresh = Guide(text, (1, 2)), Guide(text, (1, 2))
    for _ in range(2):  # Between images all may change.
        first, second = maps(1), maps(4)
        guide(*first, 0)
        with pytest.raises(ShapeError, match=re.escape(message)) as caught:
            guide(*maps(4, **change), 1)
        assert "Give the logits as at scale 0, or begin another image with k = 0." in str(caught.value)
        fresh(*first, 0)
        assert torch.equal(guide(*second, 1), fresh(*second, 1))  # A refusal leaves no trace.
        guide(*maps(1, **change), 0)
        guide(*maps(4, **change), 1)


@pytest.mark.parametrize("tau", [0.5, 2, np.float32(0.5), np.float64(0.5), torch.tensor(0.5), torch.tensor([0.5])])
def test_tau_is_any_positive_number(tau: Any) -> None:
    cond, uncond = maps()
    wanted = Guide("cfg(w=2.0)", (1,))(cond, uncond, 0, tau=float(tau))
    assert torch.equal(Guide("cfg(w=2.0)", (1,))(cond, uncond, 0, tau=tau), wanted)


@unchecked
@pytest.mark.parametrize("tau", ["0.5", b"1", 0.0, -1.0, float("nan"), float("inf"), [0.5], torch.ones(2), 1j, ()])
def test_a_tau_that_is_none(tau: Any) -> None:
    with pytest.raises(ConfigError, match="Guide: tau is a positive temperature, one number per scale, got "):
        Guide("cfg(w=2.0)", (1,))(*maps(), 0, tau=tau)


@unchecked
@pytest.mark.parametrize("wrong", [8, 3, "x", None, -1, 1.5, object(), {}, torch.ones(2)])
@pytest.mark.parametrize("name", ["cond", "uncond", "k"])
def test_whatever_is_wrong_ends_in_an_error_of_this_package(name: str, wrong: Any) -> None:
    guide = Guide("cfg(w=2.0) | ssg", (1, 2), Binary(8))
    guide(*maps(), 0)
    given = {"cond": maps(4)[0], "uncond": maps(4)[1], "k": 1}
    with pytest.raises(HGuideError, match="^Guide: "):
        guide(**{**given, name: wrong})

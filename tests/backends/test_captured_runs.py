"""Captured runs of each family but VAR: conditions of later batches are written where the first run reads them.

The capture is replaced by one that works on every device; `test_captured_cuda.py` has the real one.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captured_families import NAMES, family
from waiting import run_on_meta

import hguide
from hguide import Sampler
from hguide.backends.editing import Edit
from hguide.backends.text import TextEmbedding
from hguide.errors import ConfigError
from hguide.generate import generate
from hguide.generator import Prepared
from hguide.guidance import parse
from hguide.noise import SeededNoise
from hguide.streams import COND
from hguide.testing import check_generator

# Texts padded to another length are summed in other pieces.
TOLERANCE = 1e-5

families = pytest.mark.parametrize("name", NAMES)


@families
def test_images_are_those_of_the_plain_run_and_later_conditions_capture_nothing(name: str) -> None:
    each = family(name)
    model, capture = each.captured()
    sampler = Sampler(top_k=0 if "infinity" in name else 12)
    first, *others = each.conditions
    for conditions, seeds, negative in ((first, (0, 1), None), (others[:2], (2, 3), None), (others[1:], (4, 5), first)):
        options: dict[str, Any] = {"seeds": seeds, "negative": negative}
        wanted = generate(each.model, conditions, each.guidance, sampler, **options)
        found = generate(model, conditions, each.guidance, sampler, **options)
        torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)
    assert capture.captures == 1


@families
def test_the_contract(name: str) -> None:
    each = family(name)
    check_generator(each.captured()[0], each.conditions[0])


@families
def test_a_captured_run_waits_for_nothing(name: str) -> None:
    each = family(name)
    sampler = Sampler() if "infinity" in name else Sampler(top_k=5, top_p=0.9)
    images = run_on_meta(each.model, each.conditions[:2], parse(each.guidance), sampler)
    assert images.device.type == "meta"
    assert images.shape[0] == 2


def test_texts_of_another_length_are_captured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Infinity's are padded to a multiple of 64 tokens, so that few lengths occur."""
    each = family("infinity")
    lengths = [text.mask.sum().item() for text in each.conditions if isinstance(text, TextEmbedding)]
    assert lengths == [5, 7, 9, 11]
    for multiple, captures in ((64, 1), (8, 2), (2, 4)):
        monkeypatch.setattr("hguide.backends.infinity.generator._TEXT_MULTIPLE", multiple)
        model, capture = each.captured()
        for text in each.conditions:
            generate(model, text, seeds=[0])
        assert capture.captures == captures


def test_captured_runs_take_batches_of_a_given_size() -> None:
    each = family("hart")
    model, _ = each.captured()
    with pytest.raises(ConfigError, match="captured runs keep their memory.*give batch_size as a number"):
        generate(model, each.conditions[0], seeds=[0], batch_size="auto")
    assert torch.isfinite(generate(model, each.conditions[0], seeds=range(3), batch_size=2)).all()


def test_other_options_have_runs_of_their_own() -> None:
    changes: dict[str, dict[str, Any]] = {"hart": {"more_smooth": True}, "infinity": {"cfg_layer": -1}, "switti": {}}
    for name, options in changes.items():
        model, capture = family(name).captured()
        other = model.with_options(**options)
        assert other.captured is not None
        assert other.captured is not model.captured
        assert other.captured.capture is capture


@pytest.mark.parametrize("name", ["hart", "infinity", "switti", "vq-diffusion"])
def test_an_edit_is_captured(name: str) -> None:
    each = family(name)
    model, capture = each.captured()
    tokens = each.model.encode(generate(each.model, each.conditions[0], seeds=[9]))
    keep = torch.zeros(tuple(tokens[-1].shape[1:3]), dtype=torch.bool)
    keep[: keep.shape[0] // 2] = True
    edit = Edit(tokens, keep)
    wanted = generate(each.model.with_options(edit=edit), each.conditions[1], "cfg(w=2.0)", seeds=[0])
    found = generate(model.with_options(edit=edit), each.conditions[1], "cfg(w=2.0)", seeds=[0])
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)
    assert not torch.equal(found, generate(model, each.conditions[1], "cfg(w=2.0)", seeds=[0]))
    assert capture.captures == 2


@pytest.mark.parametrize("name", ["hart", "infinity", "switti", "vq-diffusion"])
def test_graphs_need_a_cuda_device(name: str) -> None:
    model = family(name).model
    with pytest.raises(ConfigError, match="graphs=True needs a CUDA device, the model lies on cpu"):
        model.with_options(graphs=True)


@pytest.mark.parametrize("name", ["landuse-hart", "landuse-infinity", "landuse-vqdiffusion"])
def test_models_are_loaded_with_graphs(name: str) -> None:
    with pytest.raises(ConfigError, match="graphs=True needs a CUDA device"):
        hguide.load(name, graphs=True)


def test_a_family_without_captured_runs_says_so() -> None:
    toy = hguide.load("toy")
    prepared = Prepared(1, (torch.zeros(1),))
    with pytest.raises(ConfigError, match="toy captures no runs"):
        toy.prepare([1])
    with pytest.raises(ConfigError, match="toy captures no runs"):
        toy.begin_prepared(prepared, {COND: 0}, SeededNoise([0]))

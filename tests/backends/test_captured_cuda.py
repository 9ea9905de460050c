"""Captured runs of each family but VAR on a CUDA device: the images of the same kernels without graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captured_families import NAMES, family

import hguide
from hguide import Sampler
from hguide.backends.editing import Edit
from hguide.generate import generate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

BUNDLED = {
    "landuse-hart": "cfg(3.0) | ssg(0.5)",
    "landuse-infinity": "cfg(w=3.0) | ssg(0.5)",
    "landuse-vqdiffusion": "cfg(w=3.0) | ssg(0.25, prior=lowpass(cutoff=0.5))",
}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
# Its texts are padded to another length, which rounds otherwise: in bfloat16 some bits near a tie flip.
PADDED, MEAN_OF_FLIPS = "landuse-infinity", 0.02


def on_cuda(name: str) -> tuple[Any, Any]:
    each = family(name)
    for part in ("transformer", "denoiser", "tokenizer"):
        if hasattr(each.model, part):
            getattr(each.model, part).to("cuda")
    return each, each.model.with_options(graphs=True)


@pytest.mark.parametrize("name", NAMES)
def test_tiny_models(name: str) -> None:
    each, captured = on_cuda(name)
    sampler = Sampler() if "infinity" in name else Sampler(top_k=12, top_p=0.95)
    first, *others = each.conditions
    for conditions, seeds, negative in ((first, (0, 1), None), (others[:2], (2, 3), None), (others[1:], (4, 5), first)):
        options: dict[str, Any] = {"seeds": seeds, "negative": negative}
        wanted = generate(each.model, conditions, each.guidance, sampler, **options)
        found = generate(captured, conditions, each.guidance, sampler, **options)
        torch.testing.assert_close(found, wanted, atol=TOLERANCE[torch.float32], rtol=0)
    assert len(captured.captured._runs) == 1


@pytest.mark.parametrize("name", ["hart", "infinity", "switti", "vq-diffusion"])
def test_an_edit(name: str) -> None:
    each, captured = on_cuda(name)
    tokens = each.model.encode(generate(each.model, each.conditions[0], seeds=[9]))
    keep = torch.zeros(tuple(tokens[-1].shape[1:3]), dtype=torch.bool)
    keep[: keep.shape[0] // 2] = True
    edit = Edit([each.cpu() for each in tokens], keep)
    wanted = generate(each.model.with_options(edit=edit), each.conditions[1], "cfg(w=2.0)", seeds=[0])
    found = generate(captured.with_options(edit=edit), each.conditions[1], "cfg(w=2.0)", seeds=[0])
    torch.testing.assert_close(found, wanted, atol=TOLERANCE[torch.float32], rtol=0)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models(name: str, dtype: torch.dtype) -> None:
    plain = hguide.load(name, device="cuda", dtype=dtype)
    captured = hguide.load(name, device="cuda", dtype=dtype, graphs=True)
    for classes, seeds in ((3, (0, 1)), ([4, 11], (2, 3)), (3, (0, 1))):
        wanted = generate(plain, classes, BUNDLED[name], seeds=seeds)
        found = generate(captured, classes, BUNDLED[name], seeds=seeds)
        if name == PADDED and dtype == torch.bfloat16:
            assert (found - wanted).abs().mean() <= MEAN_OF_FLIPS
        else:
            torch.testing.assert_close(found, wanted, atol=TOLERANCE[dtype], rtol=0)
    alone = generate(captured, 3, BUNDLED[name], seeds=range(3), deterministic=True)
    assert torch.equal(generate(captured, 3, BUNDLED[name], seeds=[2, 1], deterministic=True), alone[[2, 1]])

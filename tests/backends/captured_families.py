"""Tiny models of each family but VAR, for captured runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tiny_hart
import tiny_infinity
import tiny_switti
import tiny_vq_diffusion
from repeating_capture import Repeating

from hguide.backends.text import TextEmbedding
from hguide.backends.vq_diffusion import Inference
from hguide.backends.vq_diffusion.inference import even_shares
from hguide.graphs import CapturedRuns

GUIDANCE = "cfg(w=[3.0, 2.0, 1.0], stop=0.7) | ssg(0.5)"


@dataclass(frozen=True)
class Family:
    """A tiny model, and conditions for it."""

    model: Any
    conditions: tuple[TextEmbedding | int, ...]
    guidance: str = GUIDANCE

    def captured(self) -> tuple[Any, Repeating]:
        model, capture = self.model.with_options(), Repeating()
        model.captured = CapturedRuns(capture)
        return model, capture


def family(name: str) -> Family:
    texts = range(1, 5)
    if name == "infinity":
        own = tuple(tiny_infinity.text(3 + 2 * each, each) for each in texts)
        return Family(tiny_infinity.tiny_infinity(), own, "cfg(w=[3.0, 2.0, 2.0, 1.0], stop=0.7) | ssg(0.5)")
    if name == "infinity, a layer mixes":
        own = tuple(tiny_infinity.text(3 + 2 * each, each) for each in texts)
        return Family(tiny_infinity.tiny_infinity(True, cfg_layer=-1), own, "cfg(w=3.0) | ssg(0.5)")
    if name == "hart":
        return Family(tiny_hart.tiny_hart(), tuple(tiny_hart.text(each, real=each) for each in texts))
    if name == "hart, in several calls":
        model = tiny_hart.tiny_hart().with_options(maskgit_iterations=3, more_smooth=True)
        return Family(model, tuple(tiny_hart.text(each, real=each) for each in texts))
    if name == "switti":
        return Family(tiny_switti.tiny_switti(), tuple(tiny_switti.text(each, real=each) for each in texts))
    guidance = "cfg(w=3.0) | ssg(0.5, prior=lowpass(cutoff=0.5))"
    if name == "vq-diffusion":
        return Family(tiny_vq_diffusion.tiny_vq_diffusion(), (0, 1, 2, 1), guidance)
    model = tiny_vq_diffusion.tiny_vq_diffusion("text")
    if name == "vq-diffusion, revealed by purity":
        model = model.with_options(
            inference=Inference(prior_rule=2, tokens_per_step=even_shares(6, 12, 3), prior_weight=1.0)
        )
    return Family(model, tuple(map(tiny_vq_diffusion.text, texts)), guidance)


NAMES = [
    "hart",
    "hart, in several calls",
    "infinity",
    "infinity, a layer mixes",
    "switti",
    "vq-diffusion",
    "vq-diffusion, texts",
    "vq-diffusion, revealed by purity",
]

"""What classifier-free guidance, SSG and sampling are in each family of backbones, for presets of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True)
class Family:
    """Settings of a family, as {base} and {ssg} of a preset's rows.

    Attributes:
        base: guidance without SSG, in its text form, with {cfg}.
        ssg: SSG, with {beta}.
        parameters: name -> value for small models ("bundled") and for the published checkpoint ("published").
        sampler: filters that the official programs use with the published checkpoint.
        checkpoint: published one, as `hguide.load` takes it.
        options: of `hguide.load` that it needs, as written on the command line; empty where it needs none.
    """

    base: str
    ssg: str
    parameters: Mapping[str, Mapping[str, float]]
    sampler: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str = ""
    options: str = ""


def _values(cfg: tuple[float, float], beta: float) -> dict[str, dict[str, float]]:
    return {"cfg": {"bundled": cfg[0], "published": cfg[1]}, "beta": {"bundled": beta, "published": beta}}


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "var": Family("cfg({cfg})", "ssg({beta})", _values((3.0, 1.5), 1.0), {"top_k": 900, "top_p": 0.96}, "var-d16"),
        "hart": Family(
            "cfg({cfg}, schedule=ramp(hold_last=true))",
            "ssg({beta})",
            _values((3.0, 4.5), 1.0),
            # Fixed in the official loop; 14 scales are those of 1024 px.
            {"top_k": [600] * 7 + [300] * 7},
            "mit-han-lab/hart-0.7b-1024px",
            '{"text_encoder": "QWEN2", "system_prompt": "INSTRUCTION.txt"}',
        ),
        "infinity": Family(
            "cfg(w={cfg})",
            "ssg({beta})",
            _values((3.0, 4.0), 1.0),
            {"top_p": 0.97},
            "infinity_2b_reg.pth",
            '{"text_encoder": "FLAN-T5-XL"}',
        ),
        # The paper's adaptation is not given: docs/vq_diffusion.md says which choice this is.
        "vq_diffusion": Family(
            "cfg(w={cfg})",
            "ssg({beta}, prior=lowpass(cutoff=0.5), schedule=constant, positions=masked)",
            _values((1.5, 1.5), 0.5),
            {"top_p": 0.94},
            "imagenet_learnable.pth",
        ),
    }
)
"""Family -> its settings. Strengths of SSG are not printed in the paper."""
